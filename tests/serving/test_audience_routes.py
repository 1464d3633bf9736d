"""Saved audiences over HTTP: documented, guarded, and the same as directly."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from sdk.arrow import ARROW_STREAM, decode_audience
from sdk.types import PROBLEM_JSON
from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.auth import ApiKeys
from serving.database import open_database
from serving.targeting import Targeting
from serving.webhook import Webhook

KEY, READER = "the-key", "the-reader"
TARGET = {"text": "households that will buy diapers", "size": 10}
# A key of its own would be random, and might hold nobody out of ten.
DIAPERS = {"name": "Diapers", "target": TARGET, "holdout": 0.5, "holdout_key": "fixed"}


@pytest.fixture
def received() -> list[httpx.Request]:
    return []


@pytest.fixture
def http(world: Any, database: str, received: list[httpx.Request]) -> TestClient:
    world.publish(1, live=True)
    store = AudienceStore(world.workspace, open_database(world.workspace))
    targeting = Targeting(world.live(), None, members=store.member_ids)

    def receive(request: httpx.Request) -> httpx.Response:
        received.append(request)
        return httpx.Response(204 if "good" in request.headers["host"] else 400)

    webhook = Webhook(
        "secret", resolve=lambda host, port: ["93.184.215.14"],
        transport=httpx.MockTransport(receive), sleep=lambda _: None,
    )  # fmt: skip
    keys = ApiKeys.parse(f"{KEY},{READER}:read")
    app = create_app(targeting, keys, SavedAudiences(targeting, store), webhook)
    return TestClient(app, headers={"Authorization": f"Bearer {KEY}"})


@pytest.fixture
def saved(http: TestClient) -> dict[str, Any]:
    answer = http.post("/v1/audiences", json=DIAPERS)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_members_as_json_arrow_and_files(http: TestClient, saved: dict[str, Any]) -> None:
    place = f"/v1/audiences/{saved['id']}"
    direct = http.post("/v1/target", json=TARGET).json()
    listed = http.get(f"{place}/members").json()
    assert listed["users"] == direct["users"] and listed["snapshot"] == direct["snapshot"]
    arrow = http.get(f"{place}/members?part=target", headers={"Accept": ARROW_STREAM})
    _, table = decode_audience(arrow.content)
    held = http.get(f"{place}/members?part=holdout").json()["users"]
    kept = table["user_id"].to_pylist()
    assert len(kept) + len(held) == 10 and held
    parquet = http.get(f"{place}/export")
    assert f'filename="{saved["id"]}.parquet"' in parquet.headers["content-disposition"]
    read = pq.read_table(io.BytesIO(parquet.content))
    assert read["user_id"].to_pylist() == kept, "the hold-out is left out of exports"
    assert read.schema.names == ["user_id", "score", "space", "snapshot", "as_of"]
    csv = http.get(f"{place}/export?format=csv&part=all")
    assert csv.headers["content-type"].startswith("text/csv")
    assert pa_csv.read_csv(io.BytesIO(csv.content)).num_rows == 10


def test_the_iab_format_has_model_and_expiry_and_no_user(
    http: TestClient, saved: dict[str, Any]
) -> None:
    found = http.get(f"/v1/audiences/{saved['id']}/export?format=iab").json()
    (segment,) = found["data"]["segment"]
    extension = segment["ext"]
    assert (segment["id"], segment["name"]) == (saved["id"], "Diapers")
    assert extension["dimension"] == len(extension["vector"]) == 16
    assert extension["model"] == f"openfound/{saved['latest']['space']}"
    assert (extension["type"], extension["ver"]) == ("intent", "1.0")
    assert extension["expires_at"] == "2017-10-16T00:00:00+00:00"  # as_of and 28 days
    assert not any(f'"u{n}"' in json.dumps(found) for n in range(40))


def test_run_overlap_list_and_delete(http: TestClient, saved: dict[str, Any]) -> None:
    change = http.post(f"/v1/audiences/{saved['id']}/run", json={}).json()
    assert (change["entered"], change["left"], change["jaccard"]) == (0, 0, 1.0)
    rest = {"name": "Rest", "target": {**TARGET, "exclude_audiences": [saved["id"]]}}
    other = http.post("/v1/audiences", json=rest).json()
    both = http.post("/v1/audiences/overlap", json={"ids": [saved["id"], other["id"]]}).json()
    assert both["shared"] == [[10, 0], [0, 10]]
    page = http.get("/v1/audiences?limit=1").json()
    assert [one["id"] for one in page["audiences"]] == [other["id"]]
    page = http.get("/v1/audiences", params={"limit": 1, "after": page["next"]}).json()
    assert [one["id"] for one in page["audiences"]] == [saved["id"]] and page["next"] is None
    assert http.delete(f"/v1/audiences/{other['id']}").json() == {"id": other["id"]}
    assert http.get(f"/v1/audiences/{other['id']}").status_code == 404


def test_sending_reports_what_the_webhook_said(
    http: TestClient, saved: dict[str, Any], received: list[httpx.Request]
) -> None:
    place = f"/v1/audiences/{saved['id']}/send"
    sent = http.post(place, json={"url": "https://good.example/x"}).json()
    body = json.loads(received[0].content)
    assert sent["users"] == len(body["users"]) < 10 and body["part"] == "target"
    refused = http.post(place, json={"url": "https://bad.example/x"})
    assert refused.status_code == 502 and refused.headers["content-type"] == PROBLEM_JSON
    assert http.post(place, json={"url": "http://good.example"}).status_code == 422


def test_a_reading_key_changes_nothing(http: TestClient, saved: dict[str, Any]) -> None:
    reading = {"Authorization": f"Bearer {READER}"}
    place = f"/v1/audiences/{saved['id']}"
    assert http.get(place, headers=reading).status_code == 200
    body = {"name": "x", "target": TARGET}
    assert http.post("/v1/audiences", json=body, headers=reading).status_code == 403
    assert http.post(f"{place}/run", json={}, headers=reading).status_code == 403
    assert http.delete(place, headers=reading).status_code == 403
    assert http.get(place, headers={"Authorization": "Bearer no"}).status_code == 401


def test_every_status_of_these_routes_is_documented(
    http: TestClient, saved: dict[str, Any]
) -> None:
    paths = http.get("/openapi.json", headers={}).json()["paths"]
    for method, path, body in [
        ("post", "/v1/audiences", {"name": "", "target": TARGET}),
        ("post", "/v1/audiences", {"name": "x", "target": {**TARGET, "kind": "none"}}),
        ("get", "/v1/audiences/{audience}", None),
        ("get", "/v1/audiences/{audience}/export", None),
        ("post", "/v1/audiences/{audience}/run", {"snapshot": "none"}),
        ("post", "/v1/audiences/overlap", {"ids": ["a", "b"]}),
        ("post", "/v1/target", {**TARGET, "min_probability": 0.5, "size": None}),
        ("post", "/v1/target", {**TARGET, "rules": {"type": "behaviour", "verb": "bought"}}),
        ("post", "/v1/target", {**TARGET, "rules": {"type": "nothing"}}),
        ("post", "/v1/target", {**TARGET, "exclude_audiences": ["none"]}),
    ]:
        answer = http.request(method, path.replace("{audience}", "none"), json=body)
        assert str(answer.status_code) in paths[path][method]["responses"], (path, answer.text)
        assert answer.status_code in (404, 422) and answer.headers["content-type"] == PROBLEM_JSON
