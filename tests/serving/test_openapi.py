"""The OpenAPI document is true: schemathesis asks every route what it allows and what it forbids.

The application is the real one over a small published snapshot; answers are checked for 5xx, for
statuses and media types that are not documented, and for bodies that do not fit their schema.
"""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.auth import ApiKeys
from serving.database import open_database
from serving.keys import KeyStore
from serving.rates import Rates
from serving.targeting import Targeting
from serving.webhook import Webhook

KEY = "the-key"
TARGET = {"text": "households that will buy diapers", "size": 5}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
def app(world: Any) -> Any:
    """The real application, with a snapshot, a saved audience ``A`` and a key."""
    world.publish(1, live=True, facts=True)
    engine = open_database(world.workspace)
    store = AudienceStore(world.workspace, engine)
    targeting = Targeting(world.reading(), None, members=store.member_ids)
    webhook = Webhook(
        "secret", resolve=lambda host, port: ["93.184.215.14"],
        transport=httpx.MockTransport(lambda request: httpx.Response(204)), sleep=lambda _: None,
    )  # fmt: skip
    return create_app(
        targeting, ApiKeys.parse(KEY), SavedAudiences(targeting, store), webhook,
        kept_keys=KeyStore(engine), rates=Rates("off"),
    )  # fmt: skip


def ask_everything(
    app: Any, *, examples: int, keys: tuple[str | None, ...], real: dict[str, str]
) -> dict[str, set[int]]:
    """Ask each operation ``examples`` times in each mode; the statuses that came, by operation.

    ``real`` are ids by the name of their path parameter; they stand in for half the made-up ones.
    """
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    seen: dict[str, set[int]] = {}
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in sorted(operations, key=lambda one: one.method == "delete"):  # those last
        takes = operation.body or operation.path_parameters or operation.query
        modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if takes else [])]
        statuses = seen.setdefault(f"{operation.method.upper()} {operation.path}", set())
        for mode in modes:
            cases = operation.as_strategy(generation_mode=mode)
            statuses |= _ask(cases, examples, keys, real)
    return seen


def _ask(cases: Any, examples: int, keys: tuple[str | None, ...], real: dict[str, str]) -> set[int]:
    statuses: set[int] = set()

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases, key=st.sampled_from(keys), known=st.booleans())
    def ask(case: Any, key: str | None, known: bool) -> None:
        if known and case.path_parameters:
            case.path_parameters = {name: real[name] for name in case.path_parameters}
        if known and isinstance(case.body, dict):
            for asked in (case.body, case.body.get("target")):
                if isinstance(asked, dict):  # what nobody makes up: there would only be 404s
                    made_up = ("kind", "rules", "exclude_audiences", "prompt")
                    kept = {name: each for name, each in asked.items() if name not in made_up}
                    asked.clear()
                    asked.update(kept)
        case.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        answer = case.call_and_validate(checks=CHECKS)
        statuses.add(answer.status_code)
        if key != KEY and case.operation.path != "/healthz":
            assert answer.status_code in (401, 404, 405), "it answered without a key"

    ask()
    return statuses


def real_ids(app: Any) -> dict[str, str]:
    """Something that is there for each path parameter."""
    with TestClient(app, headers={"Authorization": f"Bearer {KEY}"}) as http:
        saved = http.post("/v1/audiences", json={"name": "A", "target": TARGET})
        key = http.post("/v1/keys", json={"name": "A", "scopes": ["read"]})
        live = http.get("/v1/snapshots").json()["live"]
    return {"audience": saved.json()["id"], "key": key.json()["id"], "snapshot": live}


def test_no_route_fails_or_answers_what_it_does_not_document(app: Any) -> None:
    seen = ask_everything(app, examples=6, keys=(KEY,), real=real_ids(app))
    assert len(seen) == sum(len(methods) for methods in app.openapi()["paths"].values())
    succeeded = {route for route, statuses in seen.items() if statuses & {200, 201}}
    assert len(succeeded) > len(seen) / 2, "made-up requests hardly ever reach the routes' inside"


def test_nothing_but_health_answers_without_a_key(app: Any) -> None:
    seen = ask_everything(app, examples=2, keys=(None, "wrong"), real=real_ids(app))
    assert {route for route, statuses in seen.items() if 200 in statuses} == {"GET /healthz"}


@pytest.mark.slow
def test_the_same_with_many_more_requests(app: Any) -> None:
    ask_everything(app, examples=60, keys=(KEY, KEY, KEY, None), real=real_ids(app))
