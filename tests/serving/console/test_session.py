"""Sessions: a cookie that scripts and other sites cannot use, and that ends with its key."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

ADMIN = {"Authorization": "Bearer the-key"}


def token(client: TestClient, path: str = "/sign-in") -> str:
    found = re.search(r'name="csrf" content="([^"]+)"', client.get(path).text)
    assert found is not None
    return found[1]


def sign_in(client: TestClient, key: str = "the-key") -> Any:
    form = {"key": key, "token": token(client)}
    return client.post("/sign-in", data=form, follow_redirects=False)


@pytest.fixture
def client(shop: Any) -> TestClient:
    shop.publish()
    return TestClient(shop.app())


def test_signing_in_and_out(client: TestClient) -> None:
    for path in ("/", "/audiences", "/snapshots", "/snapshots/x/reports/0"):
        answer = client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), path
    assert client.get("/console/examples").status_code == 401
    wrong = sign_in(client, "another")
    assert wrong.status_code == 401 and "This key is unknown" in wrong.text
    right = sign_in(client)
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert "the-key" not in cookie and "secure" not in cookie
    assert "Whom do you want" in client.get("/").text
    client.post("/sign-out", data={"token": token(client, "/")})
    assert client.get("/", follow_redirects=False).status_code == 303


def test_the_cookie_is_secure_under_tls(shop: Any) -> None:
    shop.publish()
    client = TestClient(shop.app(), base_url="https://testserver")
    assert "secure" in sign_in(client).headers["set-cookie"].lower()


def test_a_cookie_alone_opens_no_v1_and_no_change(client: TestClient) -> None:
    sign_in(client)
    body = {"text": "will buy tea"}
    assert client.post("/v1/plan", json=body).status_code == 401
    assert client.post("/console/api/plan", json=body).status_code == 403
    right = {"X-CSRF-Token": token(client, "/")}
    assert client.post("/console/api/plan", json=body, headers=right).status_code == 200
    for foreign in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
        answer = client.post("/console/api/plan", json=body, headers=right | foreign)
        assert answer.status_code == 403 and "another site" in answer.text
    form = {"token": "guessed"}
    assert client.post("/sign-out", data=form).status_code == 403
    assert client.post("/sign-in", data={"key": "the-key"} | form).status_code == 403


def test_a_forged_or_old_cookie_is_nobody(client: TestClient, shop: Any) -> None:
    sign_in(client)
    name, value = next(iter(client.cookies.items()))
    other = TestClient(shop.app(), cookies={name: value})  # signed with another secret
    assert other.get("/", follow_redirects=False).status_code == 303


def test_a_session_ends_with_its_key(client: TestClient) -> None:
    made = client.post("/v1/keys", headers=ADMIN, json={"name": "Ann", "scopes": ["target"]})
    assert made.status_code == 201, made.text
    assert sign_in(client, made.json()["key"]).status_code == 303
    assert client.get("/", follow_redirects=False).status_code == 200
    revoked = client.delete(f"/v1/keys/{made.json()['id']}", headers=ADMIN)
    assert revoked.status_code == 200, revoked.text
    assert client.get("/", follow_redirects=False).status_code == 303


def test_scopes_hold_in_the_console(client: TestClient) -> None:
    sign_in(client, "the-reader")
    page = client.get("/").text
    assert "Your key may look, but not save." in page
    headers = {"X-CSRF-Token": token(client, "/")}
    body = {"name": "x", "target": {"text": "will buy tea"}}
    assert client.post("/console/api/audiences", json=body, headers=headers).status_code == 403


def test_ids_leave_only_when_asked_for(client: TestClient) -> None:
    sign_in(client)
    headers = {"X-CSRF-Token": token(client, "/")}
    target = {"text": "will buy cat food", "size": 5}
    hidden = client.post("/console/preview", json={"target": target}, headers=headers)
    assert hidden.json()["size"] == 5 and "user_id" not in hidden.text
    why = client.post("/console/reasons", json={"target": target, "place": 0}, headers=headers)
    assert why.json()["user"]["contributions"] and "user_id" not in why.text
    shown = client.post(
        "/console/preview", json={"target": target, "reveal": True}, headers=headers
    )
    assert len([one["user_id"] for one in shown.json()["members"]]) == 5
    log = client.get("/v1/audit", headers=ADMIN, params={"action": "reveal"}).json()
    assert [line["detail"]["users"] for line in log["lines"]] == [5]
    beyond = client.post("/console/reasons", json={"target": target, "place": 5}, headers=headers)
    assert beyond.status_code == 422


def test_a_service_without_keys_needs_no_signing_in(shop: Any) -> None:
    shop.publish()
    client = TestClient(shop.app(keys=None))
    assert "open to anybody" in client.get("/").text
    assert client.post("/console/preview", json={"target": {"text": "x"}}).status_code == 403


def test_reports_do_not_lead_out_of_the_workspace(client: TestClient, shop: Any) -> None:
    manifest = shop.publish(week=2)
    sign_in(client)
    place = f"/snapshots/{manifest.id}/reports"
    assert "How good it is" in client.get(f"{place}/0").text
    assert client.get(f"{place}/1").status_code == 404
    path = shop.workspace.root / "snapshots" / manifest.id / "manifest.json"
    path.write_text(path.read_text().replace("reports/report.md", "../../../../etc/hostname"))
    assert client.get(f"{place}/0").status_code == 404
