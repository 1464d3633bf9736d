"""The calls about keys and the audit log. No I/O, as in ``sdk.calls``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from sdk.access import (
    MAX_OVERLAP,
    AuditPage,
    CreateKey,
    KeyInfo,
    KeyList,
    NewKey,
    RotateKey,
    Scope,
)
from sdk.calls import Call, reader, valid
from sdk.errors import UsageError

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ACTION: Final = re.compile(r"[a-z.]{1,50}")


def create_key(
    name: str,
    scopes: Iterable[Scope],
    *,
    owner: str | None,
    expires_at: datetime | None,
    rate: str | None,
) -> Call[NewKey]:
    """Make an API key."""
    if isinstance(scopes, str):
        raise UsageError(f"scopes: expected a list, got {scopes!r}.", remedy="Write [scope].")
    request = valid(
        CreateKey, name=name, scopes=list(scopes), owner=owner, expires_at=expires_at, rate=rate
    )
    # Not repeatable: each time makes another key.
    return Call("POST", "/v1/keys", reader(NewKey), body=request)


def keys() -> Call[KeyList]:
    """List API keys."""
    return Call("GET", "/v1/keys", reader(KeyList), repeatable=True)


def rotate_key(key: str, overlap: timedelta) -> Call[NewKey]:
    """Give a key a new secret."""
    seconds = overlap.total_seconds()
    if not 0 <= seconds <= MAX_OVERLAP:
        raise UsageError(
            f"overlap: expected 0 to {MAX_OVERLAP // 86_400} days, got {overlap}.",
            remedy="For ever is what a second key is for.",
        )
    request = RotateKey(overlap_seconds=int(seconds))
    return Call("POST", f"{_place(key)}/rotate", reader(NewKey), body=request)


def revoke_key(key: str) -> Call[KeyInfo]:
    """End a key."""
    return Call("DELETE", _place(key), reader(KeyInfo))


def audit(limit: int, before: int | None, action: str | None) -> Call[AuditPage]:
    """Read the audit log."""
    if not isinstance(limit, int) or not 1 <= limit <= 1_000:
        raise UsageError(f"limit: expected 1 to 1,000, got {limit!r}.", remedy="Ask page by page.")
    if action is not None and not _ACTION.fullmatch(action):
        raise UsageError(
            f"action: expected a word such as export or key.create, got {action!r}.",
            remedy="`openfound audit` shows those that occurred.",
        )
    older = "" if before is None else f"&before={int(before)}"
    only = "" if action is None else f"&action={action}"
    path = f"/v1/audit?limit={limit}{older}{only}"
    return Call("GET", path, reader(AuditPage), repeatable=True)


def _place(key: str) -> str:
    if not isinstance(key, str) or not _ID.fullmatch(key):
        # What was given is not shown: it may be the key itself.
        raise UsageError(
            "key: expected the id of a key, which has letters, digits, '_' and '-' only.",
            remedy="`openfound keys list` lists the ids.",
        )
    return f"/v1/keys/{key}"
