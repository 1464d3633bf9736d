"""What clients can do with audiences, once for threads and once for asyncio.

Both send the calls of ``sdk.audience_calls``; ``Client`` and ``AsyncClient`` inherit these methods.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, Unpack

from sdk import audience_calls as calls
from sdk.audience import Audience, write_bytes
from sdk.calls import Call
from sdk.planning import Plan
from sdk.reaching import Reach
from sdk.saved import (
    AudienceChange,
    AudiencePage,
    Deleted,
    Delivery,
    ExportFormat,
    Overlap,
    Part,
    SavedAudience,
)
from sdk.selection import Choosing, FilterChoosing
from sdk.types import DEFAULT_KIND, Prompt

Answer = TypeVar("Answer")


class AudienceMethods:
    """Audiences by blocking calls."""

    def _send(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError

    def lookalike(
        self,
        seeds: Iterable[str],
        *,
        text: str | None = None,
        with_seeds: bool = False,
        kind: str = DEFAULT_KIND,
        **choosing: Unpack[Choosing],
    ) -> Audience:
        """Users like the seeds; ``text`` stands in for fewer than ten, and a note says so."""
        return self._send(
            calls.lookalike(seeds, text=text, with_seeds=with_seeds, kind=kind, **choosing)
        )

    def plan(self, text: str, *, kind: str = DEFAULT_KIND) -> Plan:
        """How a sentence is understood: hard rules that filter, and the rest that ranks."""
        return self._send(calls.plan(text, kind=kind))

    def reach(
        self,
        text: str | None = None,
        *,
        prompt: str | Prompt | None = None,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        bins: int = 40,
        **choosing: Unpack[FilterChoosing],
    ) -> Reach:
        """How many users a demand fits how well, and what each size of audience would bring."""
        return self._send(
            calls.reach(text, prompt=prompt, kind=kind, rewrite=rewrite, bins=bins, **choosing)
        )

    def save(
        self,
        name: str,
        text: str | None = None,
        *,
        seeds: Iterable[str] | None = None,
        holdout: float = 0.0,
        holdout_key: str | None = None,
        prompt: str | Prompt | None = None,
        exact: bool = False,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        **choosing: Unpack[Choosing],
    ) -> SavedAudience:
        """Run what ``target``, or with ``seeds`` ``lookalike``, would, and keep it under a name."""
        return self._send(
            calls.save(
                name,
                text,
                seeds=seeds,
                holdout=holdout,
                holdout_key=holdout_key,
                prompt=prompt,
                exact=exact,
                kind=kind,
                rewrite=rewrite,
                **choosing,
            )
        )

    def audiences(
        self,
        limit: int = 50,
        after: str | None = None,
    ) -> AudiencePage:
        """A page of the saved audiences, newest first; ``after`` is ``next`` of the page before."""
        return self._send(calls.audiences(limit, after))

    def get_audience(
        self,
        audience: str,
    ) -> SavedAudience:
        """One saved audience and its latest run."""
        return self._send(calls.get_audience(audience))

    def members(
        self,
        audience: str,
        part: Part = "all",
    ) -> Audience:
        """Members at the latest run: all, those to target, or the hold-out."""
        return self._send(calls.members(audience, part))

    def rerun(
        self,
        audience: str,
        snapshot: str | None = None,
    ) -> AudienceChange:
        """Run it again, on the live snapshot unless told, and say what changed."""
        return self._send(calls.rerun(audience, snapshot))

    def overlap(
        self,
        audiences: Iterable[str],
    ) -> Overlap:
        """How many members saved audiences share, pair by pair."""
        return self._send(calls.overlap(audiences))

    def export(
        self,
        audience: str,
        path: str | os.PathLike[str],
        *,
        format: ExportFormat = "parquet",
        part: Part = "target",
    ) -> Path:
        """Write the members to a file, all or nothing; the hold-out is left out unless told."""
        content = self._send(calls.export(audience, format, part))
        return write_bytes(content, path)

    def send(
        self,
        audience: str,
        url: str,
        *,
        part: Part = "target",
    ) -> Delivery:
        """Send the members to a webhook; the service signs and retries."""
        return self._send(calls.send(audience, url, part))

    def delete_audience(
        self,
        audience: str,
    ) -> Deleted:
        """Forget a saved audience and its members."""
        return self._send(calls.delete_audience(audience))


class AsyncAudienceMethods:
    """Audiences by asyncio calls."""

    async def _send(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError

    async def lookalike(
        self,
        seeds: Iterable[str],
        *,
        text: str | None = None,
        with_seeds: bool = False,
        kind: str = DEFAULT_KIND,
        **choosing: Unpack[Choosing],
    ) -> Audience:
        """Users like the seeds; ``text`` stands in for fewer than ten, and a note says so."""
        return await self._send(
            calls.lookalike(seeds, text=text, with_seeds=with_seeds, kind=kind, **choosing)
        )

    async def plan(self, text: str, *, kind: str = DEFAULT_KIND) -> Plan:
        """How a sentence is understood: hard rules that filter, and the rest that ranks."""
        return await self._send(calls.plan(text, kind=kind))

    async def reach(
        self,
        text: str | None = None,
        *,
        prompt: str | Prompt | None = None,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        bins: int = 40,
        **choosing: Unpack[FilterChoosing],
    ) -> Reach:
        """How many users a demand fits how well, and what each size of audience would bring."""
        return await self._send(
            calls.reach(text, prompt=prompt, kind=kind, rewrite=rewrite, bins=bins, **choosing)
        )

    async def save(
        self,
        name: str,
        text: str | None = None,
        *,
        seeds: Iterable[str] | None = None,
        holdout: float = 0.0,
        holdout_key: str | None = None,
        prompt: str | Prompt | None = None,
        exact: bool = False,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        **choosing: Unpack[Choosing],
    ) -> SavedAudience:
        """Run what ``target``, or with ``seeds`` ``lookalike``, would, and keep it under a name."""
        return await self._send(
            calls.save(
                name,
                text,
                seeds=seeds,
                holdout=holdout,
                holdout_key=holdout_key,
                prompt=prompt,
                exact=exact,
                kind=kind,
                rewrite=rewrite,
                **choosing,
            )
        )

    async def audiences(
        self,
        limit: int = 50,
        after: str | None = None,
    ) -> AudiencePage:
        """A page of the saved audiences, newest first; ``after`` is ``next`` of the page before."""
        return await self._send(calls.audiences(limit, after))

    async def get_audience(
        self,
        audience: str,
    ) -> SavedAudience:
        """One saved audience and its latest run."""
        return await self._send(calls.get_audience(audience))

    async def members(
        self,
        audience: str,
        part: Part = "all",
    ) -> Audience:
        """Members at the latest run: all, those to target, or the hold-out."""
        return await self._send(calls.members(audience, part))

    async def rerun(
        self,
        audience: str,
        snapshot: str | None = None,
    ) -> AudienceChange:
        """Run it again, on the live snapshot unless told, and say what changed."""
        return await self._send(calls.rerun(audience, snapshot))

    async def overlap(
        self,
        audiences: Iterable[str],
    ) -> Overlap:
        """How many members saved audiences share, pair by pair."""
        return await self._send(calls.overlap(audiences))

    async def export(
        self,
        audience: str,
        path: str | os.PathLike[str],
        *,
        format: ExportFormat = "parquet",
        part: Part = "target",
    ) -> Path:
        """Write the members to a file, all or nothing; the hold-out is left out unless told."""
        content = await self._send(calls.export(audience, format, part))
        return write_bytes(content, path)

    async def send(
        self,
        audience: str,
        url: str,
        *,
        part: Part = "target",
    ) -> Delivery:
        """Send the members to a webhook; the service signs and retries."""
        return await self._send(calls.send(audience, url, part))

    async def delete_audience(
        self,
        audience: str,
    ) -> Deleted:
        """Forget a saved audience and its members."""
        return await self._send(calls.delete_audience(audience))
