"""The keys that are valid now, in memory: a request costs one digest and one lookup.

The database is read again at most every ``REFRESH_SECONDS``, when a request comes, so a key that is
made, rotated or revoked by one replica is known to the others within that time; the replica that
did it knows at once. When the database does not answer, the list it gave last holds for
``STALE_SECONDS``; then only the keys of the environment open anything.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError

from serving.auth import ApiKeys, Principal, digest

REFRESH_SECONDS: Final = 5.0
STALE_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Valid:
    """A principal, until when its key stands for it (None: always), and the key's id."""

    principal: Principal
    until: datetime | None = None
    key: str | None = None


class KeptKeys(Protocol):
    """Where keys are kept: what ``serving.keys.KeyStore`` offers."""

    def valid(self) -> Mapping[str, Valid]:
        """Digest → whom it stands for."""
        ...

    def used(self, moments: Mapping[str, datetime]) -> None:
        """Note when keys were last used, by their ids."""
        ...


class KeyRing:
    """The environment's keys and the database's; safe to share between threads."""

    def __init__(
        self,
        environment: ApiKeys,
        kept: KeptKeys | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = {each: Valid(who) for each, who in environment.principals().items()}
        self._kept, self._clock, self._seconds = kept, clock, seconds
        self._lock = threading.Lock()
        self._known: Mapping[str, Valid] = self._fixed
        self._used: dict[str, datetime] = {}
        self._tried = self._read = float("-inf")

    def find(self, key: str) -> Principal | None:
        """Whom a key stands for; None if it is unknown, expired or revoked."""
        # A lookup by digest tells nothing by its time: nobody can choose what a digest begins with.
        return self.of_digest(digest(key))

    def of_digest(self, known_by: str) -> Principal | None:
        """The same by the key's digest, which is what a session of the console holds."""
        if self.due():
            self.refresh()
        found = self._known.get(known_by)
        if found is None:
            return None
        if found.key is not None:
            now = self._clock()
            if found.until is not None and now >= found.until:
                return None
            self._used[found.key] = now
        return found.principal

    def due(self) -> bool:
        """Whether it is time to read the database."""
        return self._kept is not None and self._seconds() - self._tried >= REFRESH_SECONDS

    def refresh(self, *, now: bool = False) -> None:
        """Read the database, if nobody else has just done so or ``now`` says to do it anyway."""
        with self._lock:
            if self._kept is None or not (now or self.due()):
                return
            self._tried = self._seconds()
            used, self._used = self._used, {}
            try:
                self._kept.used(used)
                self._known = {**self._kept.valid(), **self._fixed}
                self._read = self._tried
            except SQLAlchemyError as error:
                log.warning("the keys cannot be read from the database: %s", error)
                if self._tried - self._read > STALE_SECONDS:
                    self._known = self._fixed
