"""Who is asked again, how often, and after how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from sdk import calls
from sdk.client import ATTEMPTS, AsyncClient, Client
from sdk.errors import RateLimited, Unavailable


def mocked(
    handler: Callable[[httpx.Request], httpx.Response], slept: list[float] | None = None
) -> Client:
    naps = slept if slept is not None else []
    return Client("http://mock", transport=httpx.MockTransport(handler), sleep=naps.append)


def overloaded(status: int, times: int, after: str | None, asked: list[str]) -> Callable[..., Any]:
    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if len(asked) <= times:
            headers = {"Retry-After": after} if after is not None else {}
            return httpx.Response(status, json={"status": status, "detail": "x"}, headers=headers)
        if request.url.path == "/v1/snapshots":
            return httpx.Response(200, json={"live": "a", "snapshots": []})
        return httpx.Response(200, json={"live": "a"})

    return handler


@pytest.mark.parametrize("status", [429, 503])
def test_an_overloaded_service_is_asked_again_when_it_says(status: int) -> None:
    asked: list[str] = []
    slept: list[float] = []
    assert mocked(overloaded(status, 2, "3", asked), slept).snapshots().live == "a"
    assert (len(asked), slept) == (3, [3.0, 3.0])


def test_in_the_end_the_error_is_raised() -> None:
    asked: list[str] = []
    with pytest.raises(RateLimited):
        mocked(overloaded(429, 99, "0", asked)).snapshots()
    assert len(asked) == ATTEMPTS


def test_without_a_time_too_many_requests_backs_off_and_unavailable_is_final() -> None:
    asked: list[str] = []
    slept: list[float] = []
    assert mocked(overloaded(429, 2, None, asked), slept).snapshots().live == "a"
    first, second = slept  # twice as long, and up to a second more of either by chance
    assert 0.5 <= first <= 1.5 and 1.0 <= second <= 2.0
    asked.clear()
    with pytest.raises(Unavailable):
        mocked(overloaded(503, 1, None, asked)).snapshots()
    assert len(asked) == 1


def test_what_changes_the_service_is_never_repeated() -> None:
    for change in (lambda c: c.rollback(), lambda c: c.activate("a"), lambda c: c.health()):
        asked: list[str] = []
        with pytest.raises(Unavailable):
            change(mocked(overloaded(503, 1, "0", asked)))
        assert len(asked) == 1


def test_the_async_client_retries_alike() -> None:
    asked: list[str] = []
    slept: list[float] = []

    async def nap(seconds: float) -> None:
        slept.append(seconds)

    async def story() -> None:
        transport = httpx.MockTransport(overloaded(503, 2, "1", asked))
        async with AsyncClient("http://mock", transport=transport, sleep=nap) as client:
            assert (await client.snapshots()).live == "a"

    asyncio.run(story())
    assert slept == [1.0, 1.0]


def test_retry_after_is_a_number_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert calls.retry_after("7") == 7.0
    assert calls.retry_after(later, now=now) == 90.0
    assert calls.retry_after(later, now=now + timedelta(days=1)) == 0.0
    assert calls.retry_after("soon") is None
    assert calls.retry_after(None) is None
