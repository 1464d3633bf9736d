"""Keys and the audit log by SDK and command line; the service is a fake that keeps what came."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

import sdk
from sdk import cli_options
from sdk.cli import app

NEVER = {"expires_at": None, "rotated_at": None, "overlap_until": None, "last_used_at": None}
KEY = {
    "id": "k1", "name": "crm", "owner": "Anna", "scopes": ["target", "export"],
    "rate": "600/minute", "created_at": "2026-01-01T00:00:00Z", "revoked_at": None, **NEVER,
}  # fmt: skip
NEW = {**KEY, "key": "openfound_" + "s" * 43}
ENDED = {**KEY, "id": "k0", "revoked_at": "2026-01-02T00:00:00Z"}
LINE = {
    "id": 7, "at": "2026-01-01T10:00:00Z", "who": "crm", "action": "export", "audience": "a1",
    "detail": {"format": "csv", "users": 9},
}  # fmt: skip
ANSWERS = {
    ("POST", "/v1/keys"): NEW, ("GET", "/v1/keys"): {"keys": [KEY, ENDED]},
    ("POST", "/v1/keys/k1/rotate"): {**NEW, "overlap_until": "2026-01-08T00:00:00Z"},
    ("DELETE", "/v1/keys/k1"): ENDED, ("GET", "/v1/audit"): {"lines": [LINE], "next": 7},
}  # fmt: skip


class Fake:
    """Answers as above; keeps what came."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.raw_path.decode(), body))
        return httpx.Response(200, json=ANSWERS[request.method, request.url.path])


@pytest.fixture
def fake() -> Fake:
    return Fake()


def test_both_clients_send_and_read_the_same(fake: Fake) -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    transport = httpx.MockTransport(fake)
    with sdk.Client("http://x", transport=transport) as client:
        blocking = [
            client.create_key("crm", ["target", "export"], owner="Anna", expires_at=until),
            client.keys(), client.rotate_key("k1", overlap=timedelta(hours=2)),
            client.revoke_key("k1"), client.audit(50, before=9, action="export"),
        ]  # fmt: skip
    first, fake.asked = fake.asked, []

    async def ask() -> list[Any]:
        async with sdk.AsyncClient("http://x", transport=transport) as client:
            return [
                await client.create_key("crm", ["target", "export"], owner="Anna",
                                        expires_at=until),
                await client.keys(), await client.rotate_key("k1", overlap=timedelta(hours=2)),
                await client.revoke_key("k1"), await client.audit(50, before=9, action="export"),
            ]  # fmt: skip

    assert asyncio.run(ask()) == blocking and fake.asked == first
    assert blocking[0].key == NEW["key"] and blocking[4].lines[0].who == "crm"
    assert first[0][2] == {
        "name": "crm", "scopes": ["target", "export"], "owner": "Anna",
        "expires_at": "2027-01-01T00:00:00Z",
    }  # fmt: skip
    assert first[2][2] == {"overlap_seconds": 7200}
    assert first[4][1] == "/v1/audit?limit=50&before=9&action=export"


def test_mistakes_are_told_before_sending_and_never_show_a_key() -> None:
    with sdk.Client("http://127.0.0.1:9") as client:
        with pytest.raises(sdk.InvalidRequest, match="scopes"):
            client.create_key("crm", ["write"])  # type: ignore[list-item]
        with pytest.raises(sdk.UsageError, match="scopes: expected a list"):
            client.create_key("crm", "read")  # type: ignore[arg-type]
        with pytest.raises(sdk.InvalidRequest, match="rate"):
            client.create_key("crm", ["read"], rate="often")
        with pytest.raises(sdk.UsageError, match="overlap: expected 0 to 30 days"):
            client.rotate_key("k1", overlap=timedelta(days=31))
        with pytest.raises(sdk.UsageError, match="key: expected the id") as caught:
            client.revoke_key("secret/key")
        assert "secret" not in str(caught.value)
        with pytest.raises(sdk.UsageError, match="action: expected a word"):
            client.audit(action="x&limit=9")


@pytest.fixture
def command(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Any:
    def client(url: str | None, *, timeout: float) -> sdk.Client:
        return sdk.Client("http://x", timeout=timeout, transport=httpx.MockTransport(fake))

    monkeypatch.setattr(cli_options, "Client", client)

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})

    return run


def test_commands_show_tables_and_json(command: Any, fake: Fake) -> None:
    for words, shown in [
        (("keys", "create", "crm", "--scope", "target", "--scope", "export"), NEW["key"]),
        (("keys", "list"), "revoked 2026-01-02"),
        (("keys", "rotate", "k1", "--overlap-days", "7"), "valid too until 2026-01-08"),
        (("keys", "revoke", "k1"), "revoked crm (k0)"),
        (("audit", "--limit", "1"), "--before 7"),
    ]:
        result = command(*words)
        assert result.exit_code == 0, result.output
        assert shown in result.stdout, (words, result.stdout)
        if words[:2] != ("audit", "--limit") and words[1] != "revoke":
            json.loads(command(*words, "--json").stdout)
    assert fake.asked[0][2]["scopes"] == ["target", "export"]
    rotated = [body for _, path, body in fake.asked if path.endswith("/rotate")]
    assert rotated[0] == {"overlap_seconds": 7 * 86_400}
    assert NEW["key"] not in command("keys", "list", "--json").stdout


def test_days_become_a_date_and_wrong_scopes_are_refused(command: Any, fake: Fake) -> None:
    assert command("keys", "create", "crm", "--scope", "read", "--days", "90").exit_code == 0
    until = datetime.fromisoformat(fake.asked[-1][2]["expires_at"])
    assert timedelta(days=89, hours=23) < until - datetime.now(UTC) <= timedelta(days=90)
    assert command("keys", "create", "crm", "--scope", "write").exit_code == 2
    assert command("keys", "create", "crm").exit_code == 2
    assert "Example" in command("keys", "create", "--help").output
