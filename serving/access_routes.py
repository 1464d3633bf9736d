"""Routes of access, for admins: API keys and the audit log."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from fastapi import Depends, Path, Query, Request

from sdk.access import AuditPage, CreateKey, KeyInfo, KeyList, NewKey, RotateKey
from serving.answers import errors
from serving.audit import AuditLog
from serving.auth import Who, guarded
from serving.key_ring import KeyRing
from serving.keys import KeyStore


async def _keys(request: Request) -> KeyStore:
    found: KeyStore = request.app.state.kept_keys
    return found


async def _ring(request: Request) -> KeyRing | None:
    found: KeyRing | None = request.app.state.ring
    return found


async def _log(request: Request) -> AuditLog:
    found: AuditLog = request.app.state.audit
    return found


Kept = Annotated[KeyStore, Depends(_keys)]
Ring = Annotated[KeyRing | None, Depends(_ring)]
Log = Annotated[AuditLog, Depends(_log)]
KeyId = Annotated[str, Path(max_length=128, description="Id of the key.")]
_ERRORS: Final = (401, 403, 404, 413, 422, 429, 500, 503)

routes = guarded("admin", tag="access")


@routes.post("/keys", status_code=201, responses=errors(*_ERRORS))
def create_key(asked: CreateKey, keys: Kept, ring: Ring, audit: Log, who: Who) -> NewKey:
    """Make an API key. The answer shows it, and nothing ever does again."""
    made = keys.create(asked, who.name)
    audit.note(who.name, "key.create", key=made.id, name=made.name, scopes=made.scopes)
    _known(ring)
    return made


@routes.get("/keys", responses=errors(401, 403, 429, 500, 503))
def list_keys(keys: Kept) -> KeyList:
    """List the API keys of the database, newest first, revoked ones too."""
    return KeyList(keys=keys.list())


@routes.post("/keys/{key}/rotate", responses=errors(*_ERRORS))
def rotate_key(
    key: KeyId, asked: RotateKey, keys: Kept, ring: Ring, audit: Log, who: Who
) -> NewKey:
    """Give a key a new secret; the one before stays valid for a while, so that nothing stops."""
    made = keys.rotate(key, timedelta(seconds=asked.overlap_seconds))
    audit.note(
        who.name, "key.rotate", key=key, name=made.name, overlap_seconds=asked.overlap_seconds
    )
    _known(ring)
    return made


@routes.delete("/keys/{key}", responses=errors(401, 403, 404, 422, 429, 500, 503))
def revoke_key(key: KeyId, keys: Kept, ring: Ring, audit: Log, who: Who) -> KeyInfo:
    """End a key: here at once, on other replicas within five seconds."""
    ended = keys.revoke(key)
    _known(ring)
    audit.note(who.name, "key.revoke", key=key, name=ended.name)
    return ended


@routes.get("/audit", responses=errors(401, 403, 422, 429, 500, 503))
def audit(
    log: Log,
    limit: Annotated[int, Query(ge=1, le=1_000, description="How many at most.")] = 100,
    before: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="`next` of the page before.")
    ] = None,
    action: Annotated[
        str | None,
        Query(max_length=50, pattern=r"^[a-z.]+$", description="Only lines of this action."),
    ] = None,
) -> AuditPage:
    """Who did what, newest first."""
    return log.page(limit, before, action)


def _known(ring: KeyRing | None) -> None:
    if ring is not None:
        ring.refresh(now=True)
