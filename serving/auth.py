"""API keys: who may ask, and who may change what is live.

``OPENFOUND_API_KEYS`` holds them, separated by commas. A key may do everything, unless it is
written ``KEY:read``: then it may target, fetch embeddings and list snapshots, but not tune
prompts, activate or roll back. Only the keys' SHA-256 digests are kept and handed to replicas, so
no key can leak from there. Keys must be long and random (``openssl rand -hex 32``): a plain digest
protects no others.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from feature_repo.errors import InputError

KEYS_VARIABLE: Final = "OPENFOUND_API_KEYS"
Scope = Literal["read", "admin"]

_SCOPES: Final[dict[str, Scope]] = {"read": "read", "admin": "admin"}
_bearer = HTTPBearer(auto_error=False, description="A key of `OPENFOUND_API_KEYS`.")


class ApiKeys:
    """The keys that a service knows, as digests (hexadecimal SHA-256 → scope)."""

    def __init__(self, digests: Mapping[str, Scope]) -> None:
        self.digests = dict(digests)

    @classmethod
    def parse(cls, text: str | None) -> ApiKeys | None:
        """The keys of a text like ``KEY1,KEY2:read``, or None if there are none.

        Raises :class:`InputError`, which does not show the key, if one cannot be meant.
        """
        digests: dict[str, Scope] = {}
        for place, word in enumerate(filter(None, map(str.strip, (text or "").split(","))), 1):
            key, colon, scope = word.partition(":")
            name = f"{KEYS_VARIABLE}: key {place}"
            if not key or (colon and scope not in _SCOPES):
                raise InputError(f"{name}: expected KEY, KEY:read or KEY:admin")
            if not (key.isascii() and key.isprintable() and " " not in key):
                raise InputError(f"{name}: expected printable ASCII without blanks")
            if _digest(key) in digests:
                raise InputError(f"{name} comes twice; leave one of them")
            digests[_digest(key)] = _SCOPES[scope] if colon else "admin"
        return cls(digests) if digests else None

    def scope(self, key: str) -> Scope | None:
        """What a key may do, or None if it is unknown; takes equally long for every key."""
        given, found = _digest(key), None
        for digest, scope in self.digests.items():
            if hmac.compare_digest(digest, given):
                found = scope
        return found


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


@dataclass(frozen=True)
class Caller:
    """Who asks: a name for the audit log, which tells nothing about the key itself."""

    name: str


def caller(request: Request, credentials: Credentials) -> Caller:
    """The caller by its key's digest: ``key-`` and eight digits of it."""
    if request.app.state.keys is None or credentials is None:
        return Caller("anybody")
    return Caller(f"key-{_digest(credentials.credentials)[:8]}")


def reader(request: Request, credentials: Credentials) -> Scope:
    """The scope of a request's key: a dependency of every route that needs a key."""
    keys: ApiKeys | None = request.app.state.keys
    if keys is None:
        return "admin"  # started with --insecure
    if credentials is None:
        raise _unauthorized("No API key came. Send it as `Authorization: Bearer KEY`.")
    scope = keys.scope(credentials.credentials)
    if scope is None:
        raise _unauthorized("The API key is unknown.")
    return scope


def admin(scope: Annotated[Scope, Depends(reader)]) -> None:
    """Refuses keys that may only read: a dependency of the routes that change something."""
    if scope != "admin":
        raise HTTPException(403, "This API key may read, but not change anything.")


def _unauthorized(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})
