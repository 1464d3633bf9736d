"""What a webhook receives, when it is tried again, and where nothing is ever sent."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from feature_repo.errors import InputError
from sdk.types import TargetMeta
from serving import webhook as module
from serving.picked import Audience
from serving.webhook import DeliveryFailed, Webhook

URL = "https://receiver.example:8443/hook?x=1"
PUBLIC = "93.184.215.14"


def audience(num: int = 3) -> Audience:
    meta = TargetMeta(
        snapshot="s", space="p", as_of=datetime(2017, 9, 11, tzinfo=UTC), horizon_days=28,
        engine="scan", population=9,
    )  # fmt: skip
    return Audience(meta, pa.array([f"u{n}" for n in range(num)]), np.arange(num, dtype=np.float32))


class Receiver:
    """A server that answers with the given statuses, then 200; it keeps what came."""

    def __init__(self, *statuses: int | Exception) -> None:
        self.statuses, self.requests, self.slept = list(statuses), [], []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.statuses.pop(0) if self.statuses else 200
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers={"Location": "https://elsewhere.example/"})


def sender(receiver: Receiver, resolve: Callable[..., Any] | None = None, **more: Any) -> Webhook:
    return Webhook(
        more.pop("secret", "s3cret"),
        resolve=resolve or (lambda host, port: [PUBLIC]),
        transport=httpx.MockTransport(receiver),
        sleep=receiver.slept.append,
        clock=lambda: 1_511_136_000.9,
        **more,
    )


def test_batches_are_signed_and_go_to_the_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    receiver = Receiver()
    sent = sender(receiver).send(URL, audience(3), about={"audience": "a1"}, key="a1-7-all")
    assert (sent.users, sent.requests, sent.attempts) == (3, 2, 2)
    bodies = [json.loads(request.content) for request in receiver.requests]
    assert [len(body["users"]) for body in bodies] == [2, 1]
    assert bodies[1] == {
        "audience": "a1", "batch": 2, "batches": 2, "users": [{"user_id": "u2", "score": 2.0}],
    }  # fmt: skip
    first = receiver.requests[0]
    assert (first.url.host, first.headers["host"]) == (PUBLIC, "receiver.example:8443")
    assert (first.url.port, first.url.raw_path) == (8443, b"/hook?x=1")
    assert first.extensions["sni_hostname"] == "receiver.example"
    signed = hmac.new(b"s3cret", b"1511136000." + first.content, hashlib.sha256).hexdigest()
    assert first.headers["openfound-signature"] == f"t=1511136000,v1={signed}"
    keys = [request.headers["idempotency-key"] for request in receiver.requests]
    assert keys == ["a1-7-all-1", "a1-7-all-2"]


def test_what_may_pass_is_tried_again_and_what_will_not_is_not() -> None:
    receiver = Receiver(503, httpx.ConnectError("no"), 429)
    assert sender(receiver).send(URL, audience(), about={}, key="k").attempts == 4
    assert len(receiver.slept) == 3
    assert len({request.headers["idempotency-key"] for request in receiver.requests}) == 1
    refuses = Receiver(400)
    with pytest.raises(DeliveryFailed, match="receiver.example answered 400"):
        sender(refuses).send(URL, audience(), about={}, key="k")
    assert len(refuses.requests) == 1
    down = Receiver(*[503] * 9)
    with pytest.raises(DeliveryFailed, match="answered 503"):
        sender(down).send(URL, audience(), about={}, key="k")
    assert len(down.requests) == module.ATTEMPTS
    gone = Receiver(*[httpx.ReadTimeout("slow")] * 9)
    with pytest.raises(DeliveryFailed, match="could not be reached \\(ReadTimeout\\)"):
        sender(gone).send(URL, audience(), about={}, key="k")


def test_redirects_are_not_followed() -> None:
    receiver = Receiver(302)
    with pytest.raises(DeliveryFailed, match="answered 302"):
        sender(receiver).send(URL, audience(), about={}, key="k")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], ["10.0.0.8"], ["192.168.1.1"], ["169.254.169.254"], ["0.0.0.0"], ["::1"],
        ["fe80::1%eth0"], ["fc00::1"], ["::ffff:10.0.0.1"], ["100.64.0.1"], ["224.0.0.1"],
        ["64:ff9b:1::a00:1"], [PUBLIC, "127.0.0.1"], [],
    ],
)  # fmt: skip
def test_nothing_is_sent_into_the_private_network(addresses: list[str]) -> None:
    receiver = Receiver()
    with pytest.raises(InputError, match="not public"):
        sender(receiver, lambda host, port: addresses).send(URL, audience(), about={}, key="k")
    assert receiver.requests == []


def test_a_name_that_changes_its_address_gains_nothing() -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    receiver = Receiver(503)
    sender(receiver, lambda host, port: next(answers)).send(URL, audience(), about={}, key="k")
    assert {request.url.host for request in receiver.requests} == {PUBLIC}


@pytest.mark.parametrize(
    "url",
    ["http://receiver.example/", "ftp://x/", "https://", "https://a:b@x.example/", "https:///x"],
)
def test_strange_addresses_are_refused(url: str) -> None:
    receiver = Receiver()
    with pytest.raises(InputError, match="url: "):
        sender(receiver).send(url, audience(), about={}, key="k")
    assert receiver.requests == []


def test_private_addresses_and_missing_secrets_are_the_operator_s_choice() -> None:
    receiver = Receiver()
    inside = sender(receiver, lambda host, port: ["10.0.0.8"], private=True)
    assert inside.send("http://inside/", audience(), about={}, key="k").users == 3
    with pytest.raises(InputError, match="set OPENFOUND_WEBHOOK_SECRET"):
        sender(receiver, secret=None).send(URL, audience(), about={}, key="k")
