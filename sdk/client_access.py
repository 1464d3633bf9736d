"""What admins can do about keys and the audit log, once for threads and once for asyncio.

>>> with Client() as client:  # doctest: +SKIP
...     print(client.create_key("crm", ["target", "export"]).key)  # shown only now
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, TypeVar

from sdk import access_calls as calls
from sdk.access import AuditPage, KeyInfo, KeyList, NewKey, Scope
from sdk.calls import Call

Answer = TypeVar("Answer")
DAY: Final = timedelta(days=1)


class AccessMethods:
    """Access by blocking calls."""

    def _send(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError

    def create_key(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        owner: str | None = None,
        expires_at: datetime | None = None,
        rate: str | None = None,
    ) -> NewKey:
        """Make an API key; ``.key`` is shown now and never again. ``rate`` is like `600/minute`."""
        return self._send(
            calls.create_key(name, scopes, owner=owner, expires_at=expires_at, rate=rate)
        )

    def keys(self) -> KeyList:
        """The API keys of the service's database, newest first, revoked ones too."""
        return self._send(calls.keys())

    def rotate_key(self, key: str, *, overlap: timedelta = DAY) -> NewKey:
        """Give a key, named by its id, a new secret; the one before stays valid for a while."""
        return self._send(calls.rotate_key(key, overlap))

    def revoke_key(self, key: str) -> KeyInfo:
        """End a key, named by its id; other replicas know it within five seconds."""
        return self._send(calls.revoke_key(key))

    def audit(
        self, limit: int = 100, before: int | None = None, action: str | None = None
    ) -> AuditPage:
        """Who did what, newest first; ``before`` is ``next`` of the page before."""
        return self._send(calls.audit(limit, before, action))


class AsyncAccessMethods:
    """Access by asyncio calls."""

    async def _send(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError

    async def create_key(
        self,
        name: str,
        scopes: Iterable[Scope],
        *,
        owner: str | None = None,
        expires_at: datetime | None = None,
        rate: str | None = None,
    ) -> NewKey:
        """Make an API key; ``.key`` is shown now and never again. ``rate`` is like `600/minute`."""
        return await self._send(
            calls.create_key(name, scopes, owner=owner, expires_at=expires_at, rate=rate)
        )

    async def keys(self) -> KeyList:
        """The API keys of the service's database, newest first, revoked ones too."""
        return await self._send(calls.keys())

    async def rotate_key(self, key: str, *, overlap: timedelta = DAY) -> NewKey:
        """Give a key, named by its id, a new secret; the one before stays valid for a while."""
        return await self._send(calls.rotate_key(key, overlap))

    async def revoke_key(self, key: str) -> KeyInfo:
        """End a key, named by its id; other replicas know it within five seconds."""
        return await self._send(calls.revoke_key(key))

    async def audit(
        self, limit: int = 100, before: int | None = None, action: str | None = None
    ) -> AuditPage:
        """Who did what, newest first; ``before`` is ``next`` of the page before."""
        return await self._send(calls.audit(limit, before, action))
