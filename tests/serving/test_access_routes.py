"""Keys and the audit log over HTTP: what each scope opens, and what is written down."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.exc import SQLAlchemyError

from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.audit import FLUSH_SECONDS, AuditLog
from serving.auth import ApiKeys, principal_of
from serving.database import open_database
from serving.keys import KeyStore
from serving.targeting import Targeting
from serving.webhook import Webhook

TEXT = "households that will buy diapers"
TARGET = {"text": TEXT, "size": 5}


@pytest.fixture
def http(world: Any, database: str) -> TestClient:
    world.publish(1, live=True)
    engine = open_database(world.workspace)
    store = AudienceStore(world.workspace, engine)
    targeting = Targeting(world.live(), None, members=store.member_ids)
    webhook = Webhook(
        "secret", resolve=lambda host, port: ["93.184.215.14"],
        transport=httpx.MockTransport(lambda request: httpx.Response(204)), sleep=lambda _: None,
    )  # fmt: skip
    app = create_app(
        targeting, ApiKeys.parse("boot"), SavedAudiences(targeting, store), webhook,
        kept_keys=KeyStore(engine),
    )  # fmt: skip
    return TestClient(app, headers={"Authorization": "Bearer boot"})


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def make(http: TestClient, name: str, *scopes: str, **more: Any) -> dict[str, Any]:
    answer = http.post("/v1/keys", json={"name": name, "scopes": list(scopes), **more})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


# Route, body, and the scopes beside admin that open it.
ROUTES: list[tuple[str, Any, set[str]]] = [
    ("GET /v1/snapshots", None, {"read", "target", "export"}),
    ("POST /v1/embeddings", {"user_ids": ["u1"]}, {"read"}),
    ("POST /v1/target", TARGET, {"read", "target"}),
    ("POST /v1/plan", {"text": TEXT}, {"read", "target"}),
    ("POST /v1/explain", {"text": TEXT, "user_ids": ["u1"]}, {"read", "target"}),
    ("POST /v1/portrait", {"target": TARGET}, {"read", "target"}),
    ("POST /v1/reach", {"text": TEXT}, {"read", "target"}),
    ("POST /v1/lookalike", {"seeds": ["u1"] * 12}, {"read", "target"}),
    ("GET /v1/audiences", None, {"read", "target"}),
    ("GET /v1/audiences/{id}", None, {"read", "target"}),
    ("GET /v1/audiences/{id}/members", None, {"read", "target"}),
    ("POST /v1/audiences/overlap", {"ids": ["{id}", "x"]}, {"read", "target"}),
    ("POST /v1/audiences", {"name": "A", "target": TARGET}, {"target"}),
    ("POST /v1/audiences/{id}/run", {}, {"target"}),
    ("POST /v1/prompts", {"text": TEXT, "positives": ["u1"], "negatives": ["u2"]}, {"target"}),
    ("GET /v1/audiences/{id}/export", None, {"export"}),
    ("POST /v1/audiences/{id}/send", {"url": "https://x.example/"}, {"export"}),
    ("POST /v1/rollback", None, set()),
    ("POST /v1/snapshots/x/activate", None, set()),
    ("POST /v1/keys", {"name": "more", "scopes": ["admin"]}, set()),
    ("GET /v1/keys", None, set()),
    ("POST /v1/keys/x/rotate", {}, set()),
    ("DELETE /v1/keys/x", None, set()),
    ("GET /v1/audit", None, set()),
    ("DELETE /v1/audiences/{id}", None, {"target"}),
]


def test_each_scope_opens_its_routes_and_no_others(http: TestClient) -> None:
    documented = {
        f"{method.upper()} {path}"
        for path, methods in http.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    asked = {
        route.replace("{id}", "{audience}").replace("/keys/x", "/keys/{key}")
        .replace("/snapshots/x", "/snapshots/{snapshot}")
        for route, _, _ in ROUTES
    }  # fmt: skip
    assert documented - asked == {"GET /healthz"}, "a new route needs a line above"
    saved = http.post("/v1/audiences", json={"name": "A", "target": TARGET}).json()["id"]
    keys = {scope: make(http, scope, scope)["key"] for scope in ("read", "target", "export")}
    for scope, key in keys.items():
        for route, body, opens in ROUTES:
            method, path = route.replace("{id}", saved).split()
            answer = http.request(method, path, json=body, headers=bearer(key))
            assert (answer.status_code != 403) == (scope in opens), (scope, route, answer.text)
            assert answer.status_code != 401
            assert http.request(method, path, json=body, headers=bearer("no")).status_code == 401


def test_a_key_is_made_rotated_and_revoked(http: TestClient) -> None:
    made = make(http, "crm", "target", owner="Anna", expires_at="2100-01-01T00:00:00Z")
    assert (made["owner"], made["expires_at"]) == ("Anna", "2100-01-01T00:00:00Z")
    assert http.post("/v1/target", json=TARGET, headers=bearer(made["key"])).status_code == 200
    new = http.post(f"/v1/keys/{made['id']}/rotate", json={"overlap_seconds": 0}).json()
    assert http.post("/v1/target", json=TARGET, headers=bearer(made["key"])).status_code == 401
    assert http.post("/v1/target", json=TARGET, headers=bearer(new["key"])).status_code == 200
    state = http.app.state  # type: ignore[attr-defined]
    found = principal_of(new["key"], state)
    assert found is not None and found.name == "crm" and principal_of(made["key"], state) is None
    assert http.delete(f"/v1/keys/{made['id']}").json()["revoked_at"]
    assert http.post("/v1/target", json=TARGET, headers=bearer(new["key"])).status_code == 401
    assert http.delete(f"/v1/keys/{made['id']}").status_code == 404
    listed = http.get("/v1/keys").json()["keys"]
    assert [key["name"] for key in listed] == ["crm"] and "key" not in listed[0]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["write"]}, "scopes.0"),
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"rate": "5/fortnight"}, "rate"),
        ({"rate": "0/second"}, "rate"),
        ({"expires_at": "yesterday"}, "expires_at"),
        ({"digest": "0" * 64}, "digest"),
    ],
)
def test_wrong_keys_are_refused_by_field(
    http: TestClient, fields: dict[str, Any], field: str
) -> None:
    answer = http.post("/v1/keys", json={"name": "crm", "scopes": ["read"], **fields})
    assert answer.status_code == 422
    assert field in [error["field"] for error in answer.json()["errors"]]


def test_the_audit_log_tells_who_did_what(world: Any, http: TestClient) -> None:
    made = make(http, "crm", "target", "export")
    crm = bearer(made["key"])
    http.post("/v1/target", json=TARGET, headers=crm)
    http.post("/v1/lookalike", json={"seeds": [f"u{n}" for n in range(12)]}, headers=crm)
    saved = http.post("/v1/audiences", json={"name": "A", "target": TARGET}, headers=crm).json()
    http.get(f"/v1/audiences/{saved['id']}/export?format=csv", headers=crm)
    http.post(f"/v1/audiences/{saved['id']}/send", json={"url": "https://x.example/"}, headers=crm)
    http.post(f"/v1/snapshots/{world.publish(2).id}/activate")
    http.post("/v1/rollback")
    http.delete(f"/v1/keys/{made['id']}")
    lines = http.get("/v1/audit").json()["lines"]
    done = [(line["who"], line["action"]) for line in reversed(lines)]
    boot = done[0][0]
    assert boot.startswith("key-")
    assert sorted(done) == sorted([
        (boot, "key.create"), ("crm", "target"), ("crm", "lookalike"), ("crm", "save"),
        ("crm", "export"), ("crm", "send"), ("crm", "sent"), (boot, "activate"),
        (boot, "rollback"), (boot, "key.revoke"),
    ])  # fmt: skip
    by_action = {line["action"]: line for line in lines}
    assert by_action["target"]["detail"] | {"snapshot": ""} == {
        "snapshot": "", "users": 5, "text": TEXT,
    }  # fmt: skip
    assert by_action["export"]["audience"] == saved["id"]
    assert made["key"] not in str(lines)


def test_picks_are_written_soon_and_at_the_end(world: Any, http: TestClient) -> None:
    def written() -> int:
        with open_database(world.workspace).connect() as connection:
            found = connection.execute(sa.text("SELECT * FROM audit WHERE action = 'target'"))
            return len(found.all())

    with http:
        assert http.post("/v1/target", json=TARGET).status_code == 200
    assert written() == 1, "the application ended, and wrote what waited"
    assert http.post("/v1/target", json=TARGET).status_code == 200
    deadline = time.monotonic() + 20 * FLUSH_SECONDS
    while written() < 2:
        assert time.monotonic() < deadline
        time.sleep(FLUSH_SECONDS / 10)


def test_what_the_database_refuses_is_kept_and_tried_again(world: Any, database: str) -> None:
    engine = open_database(world.workspace)
    log = AuditLog(engine)
    log.later("me", "target", text="one")
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE audit RENAME TO away"))
    with pytest.raises(SQLAlchemyError):
        log.flush()
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE away RENAME TO audit"))
    log.later("me", "target", text="two")
    assert [line.detail["text"] for line in log.page().lines] == ["two", "one"]


def test_the_audit_log_comes_in_pages(http: TestClient) -> None:
    for number in range(5):
        make(http, f"k{number}", "read")
    seen: list[str] = []
    place = "/v1/audit?limit=2&action=key.create"
    before: int | None = None
    while True:
        page = http.get(place if before is None else f"{place}&before={before}").json()
        seen += [line["detail"]["name"] for line in page["lines"]]
        if (before := page["next"]) is None:
            break
    assert seen == ["k4", "k3", "k2", "k1", "k0"]
    assert http.get("/v1/audit?limit=0").status_code == 422
