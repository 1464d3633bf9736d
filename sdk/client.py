"""``Client`` and ``AsyncClient``: the service's calls as methods.

Both send the calls of ``sdk.calls``; only waiting differs. Settings come from the arguments or,
when a client is built, from ``OPENFOUND_URL`` and ``OPENFOUND_API_KEY``; importing reads nothing.

Retries happen only where they are safe. Connecting is tried again always (nothing was sent yet).
An answer 429, or 503 with ``Retry-After``, is retried for calls that may be repeated: targeting,
embeddings and listing, never tuning, activation or roll-back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

import httpx
import tenacity

from sdk import calls
from sdk.audience import Audience, Embeddings
from sdk.client_access import AccessMethods, AsyncAccessMethods
from sdk.client_audiences import AsyncAudienceMethods, AudienceMethods
from sdk.client_why import AsyncWhyMethods, WhyMethods
from sdk.errors import RateLimited, Unavailable
from sdk.selection import Choosing
from sdk.settings import Settings, http_options, proxy_for
from sdk.types import (
    DEFAULT_KIND,
    Activation,
    Health,
    Prompt,
    SnapshotsResponse,
    TuneMethod,
)

LONGEST_WAIT: Final = 30.0
"""Seconds; told to wait longer than this, a client raises instead of sleeping."""
ATTEMPTS: Final = 3
CONNECT_RETRIES: Final = 2

Answer = TypeVar("Answer")


class Client(AudienceMethods, AccessMethods, WhyMethods):
    """Talks to one OpenFound service; safe to share between threads.

    >>> with Client("http://127.0.0.1:8000") as client:  # doctest: +SKIP
    ...     client.target("households that will buy diapers next month", size=500)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = Settings.resolve(url, api_key, timeout)
        transport = transport or httpx.HTTPTransport(
            retries=CONNECT_RETRIES, proxy=proxy_for(self._settings.url)
        )
        self._http = httpx.Client(transport=transport, **http_options(self._settings))
        self._sleep = sleep

    def target(
        self,
        text: str | None = None,
        *,
        prompt: str | Prompt | None = None,
        exact: bool = False,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        split: bool = True,
        **choosing: Unpack[Choosing],
    ) -> Audience:
        """The users whom a sentence, or a tuned ``prompt``, describes best; 100 unless told.

        Args:
            exact: score every user.
            rewrite: let the service read a sentence in its own words; a prompt is never rewritten.
            split: let it read hard rules out of the sentence, if no ``rules`` are given.
            choosing: one of ``size``, ``min_score``, ``min_probability``, ``share`` and
                ``expected_buyers``; before it act ``rules``, ``include``, ``exclude`` and
                ``exclude_audiences`` (``sdk.selection``, ``sdk.rules``).
        """
        return self._send(
            calls.target(
                text,
                prompt=prompt,
                exact=exact,
                kind=kind,
                rewrite=rewrite,
                split=split,
                **choosing,
            )
        )

    def tune(
        self,
        text: str,
        positives: Iterable[str],
        negatives: Iterable[str],
        *,
        kind: str = DEFAULT_KIND,
        method: TuneMethod = "posterior",
    ) -> Prompt:
        """Sharpen a sentence with users who are meant and users who are not; five of each do.

        Method ``"tokens"`` is FOUND's own, prompt tokens before the sentence; it takes seconds.
        """
        return self._send(calls.tune(text, positives, negatives, kind=kind, method=method))

    def embeddings(self, ids: Iterable[str], *, kind: str = DEFAULT_KIND) -> Embeddings:
        """Stored embeddings of up to 10,000 users; unknown ones are listed as missing."""
        return self._send(calls.embeddings(ids, kind=kind))

    def snapshots(self) -> SnapshotsResponse:
        """All snapshots, newest first, and which one is live."""
        return self._send(calls.snapshots())

    def activate(self, snapshot: str) -> Activation:
        """Make a snapshot live."""
        return self._send(calls.activate(snapshot))

    def rollback(self) -> Activation:
        """Make the snapshot live that was live before."""
        return self._send(calls.rollback())

    def health(self) -> Health:
        """The live snapshot, if the service is ready; raises Unavailable if it is not."""
        return self._send(calls.health())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._settings.url!r})"

    def _send(self, call: calls.Call[Answer]) -> Answer:
        if not call.repeatable:
            return self._once(call)
        retrying = tenacity.Retrying(sleep=self._sleep, **_policy())
        answer: Answer = retrying(self._once, call)
        return answer

    def _once(self, call: calls.Call[Answer]) -> Answer:
        try:
            response = self._http.request(**call.arguments())
        except httpx.HTTPError as error:
            raise calls.transport_error(
                error, url=self._settings.url, timeout=self._settings.timeout
            ) from error
        return call.answer(response)


class AsyncClient(AsyncAudienceMethods, AsyncAccessMethods, AsyncWhyMethods):
    """``Client`` for asyncio: the same methods, awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = Settings.resolve(url, api_key, timeout)
        transport = transport or httpx.AsyncHTTPTransport(
            retries=CONNECT_RETRIES, proxy=proxy_for(self._settings.url)
        )
        self._http = httpx.AsyncClient(transport=transport, **http_options(self._settings))
        self._sleep = sleep

    async def target(
        self,
        text: str | None = None,
        *,
        prompt: str | Prompt | None = None,
        exact: bool = False,
        kind: str = DEFAULT_KIND,
        rewrite: bool = True,
        split: bool = True,
        **choosing: Unpack[Choosing],
    ) -> Audience:
        """The users whom a sentence, or a tuned ``prompt``, describes best; 100 unless told.

        Args:
            exact: score every user.
            rewrite: let the service read a sentence in its own words; a prompt is never rewritten.
            split: let it read hard rules out of the sentence, if no ``rules`` are given.
            choosing: one of ``size``, ``min_score``, ``min_probability``, ``share`` and
                ``expected_buyers``; before it act ``rules``, ``include``, ``exclude`` and
                ``exclude_audiences`` (``sdk.selection``, ``sdk.rules``).
        """
        return await self._send(
            calls.target(
                text,
                prompt=prompt,
                exact=exact,
                kind=kind,
                rewrite=rewrite,
                split=split,
                **choosing,
            )
        )

    async def tune(
        self,
        text: str,
        positives: Iterable[str],
        negatives: Iterable[str],
        *,
        kind: str = DEFAULT_KIND,
        method: TuneMethod = "posterior",
    ) -> Prompt:
        """Sharpen a sentence with users who are meant and users who are not; five of each do.

        Method ``"tokens"`` is FOUND's own, prompt tokens before the sentence; it takes seconds.
        """
        return await self._send(calls.tune(text, positives, negatives, kind=kind, method=method))

    async def embeddings(self, ids: Iterable[str], *, kind: str = DEFAULT_KIND) -> Embeddings:
        """Stored embeddings of up to 10,000 users; unknown ones are listed as missing."""
        return await self._send(calls.embeddings(ids, kind=kind))

    async def snapshots(self) -> SnapshotsResponse:
        """All snapshots, newest first, and which one is live."""
        return await self._send(calls.snapshots())

    async def activate(self, snapshot: str) -> Activation:
        """Make a snapshot live."""
        return await self._send(calls.activate(snapshot))

    async def rollback(self) -> Activation:
        """Make the snapshot live that was live before."""
        return await self._send(calls.rollback())

    async def health(self) -> Health:
        """The live snapshot, if the service is ready; raises Unavailable if it is not."""
        return await self._send(calls.health())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._settings.url!r})"

    async def _send(self, call: calls.Call[Answer]) -> Answer:
        if not call.repeatable:
            return await self._once(call)
        retrying = tenacity.AsyncRetrying(sleep=self._sleep, **_policy())
        return await retrying(self._once, call)

    async def _once(self, call: calls.Call[Answer]) -> Answer:
        try:
            response = await self._http.request(**call.arguments())
        except httpx.HTTPError as error:
            raise calls.transport_error(
                error, url=self._settings.url, timeout=self._settings.timeout
            ) from error
        return call.answer(response)


def _policy() -> dict[str, Any]:
    return {
        "retry": tenacity.retry_if_exception(_worth_a_retry),
        "wait": _wait,
        "stop": tenacity.stop_after_attempt(ATTEMPTS),
        "reraise": True,
    }


def _worth_a_retry(error: BaseException) -> bool:
    if isinstance(error, RateLimited):
        return (error.retry_after or 0.0) <= LONGEST_WAIT
    if isinstance(error, Unavailable):
        # Without a time it is no overload: a snapshot is missing, and waiting does not help.
        return error.retry_after is not None and error.retry_after <= LONGEST_WAIT
    return False


_BACK_OFF = tenacity.wait_exponential_jitter(initial=0.5, max=LONGEST_WAIT)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    told = getattr(error, "retry_after", None)
    return float(told) if told is not None else _BACK_OFF(state)
