"""How often a key may ask."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from limits.errors import StorageError

from feature_repo.errors import InputError
from serving.api import create_app
from serving.auth import ApiKeys, Principal
from serving.rates import DEFAULT_RATE, Rates, rate_from
from serving.targeting import Targeting

CRM = Principal("crm", frozenset({"read"}))


def asked(rates: Rates, who: Principal, times: int) -> list[str | None]:
    """Of each request None, or the ``Retry-After`` that refused it."""

    async def ask() -> list[str | None]:
        waits: list[str | None] = []
        for _ in range(times):
            try:
                await rates.admit(who)
                waits.append(None)
            except HTTPException as error:
                assert error.status_code == 429 and error.headers is not None
                waits.append(error.headers["Retry-After"])
        return waits

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


def test_a_limit_that_cannot_be_counted_together_is_counted_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Away:
        def hit(self, *asked: Any) -> bool:
            raise StorageError(ConnectionError("nobody answers"))

    rates = Rates("2/hour")
    rates._shared = Away()  # type: ignore[assignment]
    assert [wait is None for wait in asked(rates, CRM, 3)] == [True, True, False]
    assert "nobody answers" in caplog.text


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
