"""What clients can ask about people who were picked: why this user, what these have in common.

Both send the calls of ``sdk.audience_calls``; ``Client`` and ``AsyncClient`` inherit these methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Unpack

from sdk import audience_calls as calls
from sdk.calls import Call
from sdk.explaining import Explanations, Portrait
from sdk.rules import Rule
from sdk.selection import Choosing
from sdk.types import DEFAULT_KIND, Prompt

Answer = TypeVar("Answer")


class WhyMethods:
    """Questions of why, by blocking calls."""

    def _send(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError

    def explain(
        self,
        ids: Iterable[str],
        text: str | None = None,
        *,
        prompt: str | Prompt | None = None,
        audience: str | None = None,
        rules: Rule | Mapping[str, Any] | None = None,
        top: int = 5,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        split: bool = True,
    ) -> Explanations:
        """What carried the scores of up to 20 users; each takes about a second."""
        return self._send(
            calls.explain(
                ids, text, prompt=prompt, audience=audience, rules=rules, top=top, kind=kind,
                rewrite=rewrite, split=split,
            )
        )  # fmt: skip

    def portrait(
        self,
        text: str | None = None,
        *,
        audience: str | None = None,
        days: int = 84,
        top: int = 10,
        prompt: str | Prompt | None = None,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        split: bool = True,
        **choosing: Unpack[Choosing],
    ) -> Portrait:
        """What tells an audience from everybody: as ``target`` picks it, or a saved one."""
        return self._send(
            calls.portrait(
                text, audience=audience, days=days, top=top, prompt=prompt, kind=kind,
                rewrite=rewrite, split=split, **choosing,
            )
        )  # fmt: skip


class AsyncWhyMethods:
    """The same for asyncio."""

    async def _send(self, call: Call[Answer]) -> Answer:
        raise NotImplementedError

    async def explain(
        self,
        ids: Iterable[str],
        text: str | None = None,
        *,
        prompt: str | Prompt | None = None,
        audience: str | None = None,
        rules: Rule | Mapping[str, Any] | None = None,
        top: int = 5,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        split: bool = True,
    ) -> Explanations:
        """What carried the scores of up to 20 users; each takes about a second."""
        return await self._send(
            calls.explain(
                ids, text, prompt=prompt, audience=audience, rules=rules, top=top, kind=kind,
                rewrite=rewrite, split=split,
            )
        )  # fmt: skip

    async def portrait(
        self,
        text: str | None = None,
        *,
        audience: str | None = None,
        days: int = 84,
        top: int = 10,
        prompt: str | Prompt | None = None,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        split: bool = True,
        **choosing: Unpack[Choosing],
    ) -> Portrait:
        """What tells an audience from everybody: as ``target`` picks it, or a saved one."""
        return await self._send(
            calls.portrait(
                text, audience=audience, days=days, top=top, prompt=prompt, kind=kind,
                rewrite=rewrite, split=split, **choosing,
            )
        )  # fmt: skip
