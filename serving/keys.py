"""API keys in the service's database: made, listed, rotated with an overlap, revoked.

Only digests are kept; the key itself is in the answer that makes it, and nowhere else. Rows are
never deleted, so that the audit log's names keep their meaning.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from feature_repo.errors import InputError, UnknownKey
from sdk.access import CreateKey, KeyInfo, NewKey
from serving.auth import Principal, digest
from serving.database import KeyRow, find
from serving.key_ring import Valid

PREFIX: Final = "openfound_"
"""Keys begin with it, so that scanners for leaked secrets can know them."""
_SECRET_BYTES: Final = 32
_ID_BYTES: Final = 8
_USED_EVERY: Final = timedelta(minutes=1)


class KeyStore:
    """The keys of a database; safe to share between threads."""

    def __init__(
        self, engine: sa.Engine, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._engine, self._clock = engine, clock

    def create(self, asked: CreateKey, owner: str) -> NewKey:
        """Make a key. Raises InputError where its name is taken or it would never be valid."""
        now, key = self._clock(), _new_key()
        if asked.expires_at is not None and asked.expires_at <= now:
            raise InputError(f"expires_at: expected a time to come, got {asked.expires_at:%F %T}")
        row = KeyRow(
            id=secrets.token_hex(_ID_BYTES), name=asked.name, owner=asked.owner or owner,
            digest=digest(key), scopes=list(asked.scopes), rate=asked.rate, created_at=now,
            expires_at=asked.expires_at,
        )  # fmt: skip
        with Session(self._engine) as session:
            session.add(row)
            try:
                session.commit()
            except IntegrityError as error:  # an index keeps names apart, whoever else asks now
                raise InputError(
                    f"name: a key named {asked.name!r} is there already; rotate or revoke it, or "
                    f"choose another name"
                ) from error
            return _shown(row, key)

    def list(self) -> list[KeyInfo]:
        """All keys, newest first, revoked ones too."""
        order = (KeyRow.created_at.desc(), KeyRow.id)
        with Session(self._engine) as session:
            return [_info(row) for row in session.scalars(sa.select(KeyRow).order_by(*order))]

    def rotate(self, key_id: str, overlap: timedelta) -> NewKey:
        """Give a key a new secret; the one before stays valid for ``overlap``, others end now.

        Raises UnknownKey for one that is not there or was revoked.
        """
        now, key = self._clock(), _new_key()
        with Session(self._engine) as session, session.begin():
            row = _living(session, key_id)
            row.previous_digest, row.overlap_until = row.digest, now + overlap
            row.digest, row.rotated_at = digest(key), now
            return _shown(row, key)

    def revoke(self, key_id: str) -> KeyInfo:
        """End a key and what it was before its rotation. Raises UnknownKey."""
        with Session(self._engine) as session, session.begin():
            row = _living(session, key_id)
            row.revoked_at, row.overlap_until = self._clock(), None
            return _info(row)

    # --- for the ring

    def valid(self) -> Mapping[str, Valid]:
        """Digest → whom it stands for, of all keys that are neither revoked nor expired."""
        now = self._clock()
        found: dict[str, Valid] = {}
        with Session(self._engine) as session:
            for row in session.scalars(sa.select(KeyRow).where(KeyRow.revoked_at.is_(None))):
                who = Principal(row.name, frozenset(row.scopes), row.rate)
                found[row.digest] = Valid(who, row.expires_at, row.id)
                if row.previous_digest and row.overlap_until and row.overlap_until > now:
                    ends = [row.overlap_until, *([row.expires_at] if row.expires_at else [])]
                    found[row.previous_digest] = Valid(who, min(ends), row.id)
        return found

    def used(self, moments: Mapping[str, datetime]) -> None:
        """Note when keys were last used; not more than once a minute, which is often enough."""
        if not moments:
            return
        with Session(self._engine) as session, session.begin():
            # In one order on every replica: PostgreSQL locks row by row, and two could deadlock.
            for key_id, moment in sorted(moments.items()):
                old = sa.or_(
                    KeyRow.last_used_at.is_(None), KeyRow.last_used_at < moment - _USED_EVERY
                )
                session.execute(
                    sa.update(KeyRow).where(KeyRow.id == key_id, old).values(last_used_at=moment)
                )


def _new_key() -> str:
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def _living(session: Session, key_id: str) -> KeyRow:
    row = find(session, KeyRow, key_id)
    if row is None or row.revoked_at is not None:
        raise UnknownKey(
            f"key: no key that is not revoked has the id {key_id[:80]!r}; list them with "
            "`openfound keys list`"
        )
    return row


def _info(row: KeyRow) -> KeyInfo:
    return KeyInfo.model_validate({name: getattr(row, name) for name in KeyInfo.model_fields})


def _shown(row: KeyRow, key: str) -> NewKey:
    return NewKey(**_info(row).model_dump(), key=key)
