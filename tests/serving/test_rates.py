"""How often a key may ask."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

from feature_repo.errors import InputError
from serving.api import create_app
from serving.auth import ApiKeys, Principal
from serving.rates import AGAIN_SECONDS, DEFAULT_RATE, REDIS_SECONDS, Rates, rate_from
from serving.targeting import Targeting

CRM = Principal("crm", frozenset({"read"}))


async def refusal(rates: Rates, who: Principal) -> str | None:
    """None, or the ``Retry-After`` that refused a request."""
    try:
        await rates.admit(who)
    except HTTPException as error:
        assert error.status_code == 429 and error.headers is not None
        return error.headers["Retry-After"]
    return None


def asked(rates: Rates, who: Principal, times: int) -> list[str | None]:
    """The same of each of some requests."""

    async def ask() -> list[str | None]:
        return [await refusal(rates, who) for _ in range(times)]

    return asyncio.run(ask())


def test_one_key_s_requests_are_counted_apart_from_others() -> None:
    rates = Rates("3/hour")
    waits = asked(rates, CRM, 5)
    assert waits[:3] == [None] * 3 and all(1 <= int(wait or 0) <= 3_600 for wait in waits[3:])
    assert asked(rates, Principal("web", frozenset({"read"})), 3) == [None] * 3


def test_a_key_s_own_limit_takes_the_place_of_the_service_s() -> None:
    rates = Rates("3/hour")
    assert asked(rates, Principal("batch", frozenset({"read"}), "9/hour"), 9) == [None] * 9
    assert None not in asked(rates, Principal("slow", frozenset({"read"}), "1/hour"), 4)[1:]
    assert asked(Rates("off"), CRM, 50) == [None] * 50


def test_who_waits_as_told_is_let_in() -> None:
    rates = Rates("2/second")
    (*_, wait) = asked(rates, CRM, 3)
    assert wait is not None

    async def wait_and_ask() -> None:
        await asyncio.sleep(float(wait))
        await rates.admit(CRM)

    asyncio.run(wait_and_ask())


# --- with a real Redis


class Seconds:
    """A clock that goes when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_two_replicas_count_together(redis: Any) -> None:
    async def ask() -> None:
        one, two = (Rates("4/minute", redis.url) for _ in range(2))
        waits = [await refusal(rates, CRM) for rates in (one, two, one, two, one, two)]
        assert waits[:4] == [None] * 4 and all(1 <= int(wait or 0) <= 60 for wait in waits[4:])
        web = Principal("web", frozenset({"read"}))
        assert await refusal(one, web) is None, "another key's requests are its own"

    asyncio.run(ask())


def test_who_waits_as_redis_says_is_let_in(redis: Any) -> None:
    async def ask() -> None:
        one, two = (Rates("2/second", redis.url) for _ in range(2))
        waits = [await refusal(rates, CRM) for rates in (one, two, one)]
        assert waits[:2] == [None, None] and waits[2] is not None
        await asyncio.sleep(float(waits[2]))
        await two.admit(CRM)

    asyncio.run(ask())


def test_a_redis_that_ends_is_told_once_and_used_again(
    redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Seconds()

    async def ask() -> None:
        rates = Rates("2/hour", redis.url, seconds=clock)
        assert await refusal(rates, CRM) is None
        redis.stop()
        alone = [await refusal(rates, CRM) is None for _ in range(4)]
        assert alone == [True, True, False, False], "this replica counts from nothing"
        clock.now += AGAIN_SECONDS
        assert await refusal(rates, CRM) is not None
        assert [line.getMessage()[:22] for line in caplog.records] == ["Redis does not count r"]
        redis.start()
        assert await refusal(rates, CRM) is not None, "it is asked every few seconds only"
        clock.now += AGAIN_SECONDS
        assert await refusal(rates, CRM) is None, "the new Redis has counted nothing yet"
        assert caplog.records[1:][0].getMessage() == "Redis counts requests again"

    asyncio.run(ask())
    assert len(caplog.records) == 2


def test_a_redis_that_hangs_holds_nobody_up_for_long(
    redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        rates = Rates("100/hour", redis.url)
        await rates.admit(CRM)
        redis.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(20 * REDIS_SECONDS):
            await asyncio.gather(*(rates.admit(CRM) for _ in range(20)))
            await rates.admit(CRM)

    asyncio.run(ask())
    assert len(caplog.records) == 1


@pytest.mark.parametrize("text", ["often", "5/fortnight", "-1/second", "5"])
def test_settings_that_cannot_be_meant_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="OPENFOUND_RATE_LIMIT: expected"):
        rate_from({"OPENFOUND_RATE_LIMIT": text})


def test_the_environment_sets_the_limit() -> None:
    assert rate_from({}) == DEFAULT_RATE and rate_from({"OPENFOUND_RATE_LIMIT": "off"}) == "off"
    assert rate_from({"OPENFOUND_RATE_LIMIT": "5/second"}) == "5/second"


def test_routes_answer_429_as_a_problem(world: Any) -> None:
    world.publish(1, live=True)
    app = create_app(
        Targeting(world.live(), None), ApiKeys.parse("boot,other:read"), rates=Rates("2/hour")
    )
    http = TestClient(app, headers={"Authorization": "Bearer boot"})
    answers = [http.post("/v1/target", json={"text": "x", "size": 1}) for _ in range(2)]
    answers += [http.get("/v1/snapshots")]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) >= 1
    assert answers[2].json()["status"] == 429 and "2 per 1 hour" in answers[2].json()["detail"]
    assert http.get("/healthz").status_code == 200, "health is not counted"
    other = {"Authorization": "Bearer other"}
    assert http.get("/v1/snapshots", headers=other).status_code == 200
