"""Both clients, against a real server and a mocked transport."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from sdk.audience import Audience, Embeddings
from sdk.client import ATTEMPTS, AsyncClient, Client
from sdk.errors import (
    ApiError,
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
    SpaceConflict,
    Timeout,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    UsageError,
)

SENTENCE = "households that will buy diapers next month"


def mocked(handler: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://mock", transport=httpx.MockTransport(handler))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_target_over_arrow(service: Any) -> None:
    with Client() as client:
        audience = client.target(f"  {SENTENCE}  ", size=5)
    assert isinstance(audience, Audience)
    assert audience.text == SENTENCE
    assert audience.ids == ["0", "1", "2", "3", "4"]
    assert audience.scores[0] == 1.0
    assert audience.engine == "milvus"
    sent = service.requests[-1]
    assert json.loads(sent["body"]) == {
        "text": SENTENCE,
        "size": 5,
        "exact": False,
        "kind": "fused",
        "rewrite": True,
        "split": True,
    }
    assert sent["headers"]["Accept"].startswith("application/vnd.apache.arrow.stream")
    assert sent["headers"]["User-Agent"].startswith("openfound-sdk/")


def test_a_prompt_is_tuned_once_and_asked_with_in_place_of_a_sentence(service: Any) -> None:
    with Client() as client:
        made = client.tune(SENTENCE, ["1", "2", "3"], (str(i) for i in (4, 5, 6, 4)))
        assert (made.prompt, made.positives, made.negatives) == ("p" * 16, 3, 3)
        by_prompt, by_id = client.target(prompt=made, size=2), client.target(prompt=made.prompt)
    assert (by_prompt.text, by_id.text) == (SENTENCE, f"prompt {made.prompt}")
    tuned, asked, _ = (json.loads(one["body"]) for one in service.requests)
    assert tuned["negatives"] == ["4", "5", "6"]
    assert tuned["method"] == made.method == "posterior"
    rest = {"size": 2, "exact": False, "kind": "fused", "rewrite": True, "split": True}
    assert asked == {"prompt": made.prompt, **rest}


def test_tokens_are_learnt_where_asked_for(service: Any) -> None:
    with Client() as client:
        assert client.tune(SENTENCE, list("123"), list("456"), method="tokens").method == "tokens"
        with pytest.raises(InvalidRequest, match="method: .*'posterior' or 'tokens'"):
            client.tune(SENTENCE, list("123"), list("456"), method="guess")  # type: ignore[arg-type]
    (tuned,) = (json.loads(one["body"]) for one in service.requests)
    assert tuned["method"] == "tokens"


def test_seeds_are_checked_before_they_are_sent(service: Any) -> None:
    with Client() as client:
        with pytest.raises(InvalidRequest, match="positives: .* at least 3 items"):
            client.tune(SENTENCE, ["1", "2"], ["4", "5", "6"])
        with pytest.raises(InvalidRequest, match="both positive and negative: 3"):
            client.tune(SENTENCE, ["1", "2", "3"], ["3", "5", "6"])
        with pytest.raises(UsageError, match="negatives: expected a list of user ids, got '456'"):
            client.tune(SENTENCE, ["1", "2", "3"], "456")
        with pytest.raises(InvalidRequest, match="text: .*a sentence, or the id"):
            client.target()
    assert service.requests == []


def test_tuning_is_not_repeated_under_load(service: Any, problem: Any) -> None:
    service.scripted = [problem(503, "busy", headers={"Retry-After": "0"})]
    with Client() as client, pytest.raises(Unavailable):
        client.tune(SENTENCE, ["1", "2", "3"], ["4", "5", "6"])
    assert len(service.requests) == 1


def test_a_server_that_knows_json_only_gives_the_same(service: Any) -> None:
    with Client() as client:
        by_arrow = client.target(SENTENCE, size=7), client.embeddings(["3", "x"])
        service.arrow = False
        by_json = client.target(SENTENCE, size=7), client.embeddings(["3", "x"])
    for one, other in zip(by_arrow, by_json, strict=True):
        assert one.meta == other.meta
        assert one.table.equals(other.table)


def test_a_size_beyond_the_population_gives_everybody_and_a_note(service: Any) -> None:
    with Client() as client:
        audience = client.target(SENTENCE, size=1_000, exact=True)
    assert len(audience) == audience.population == 30
    assert audience.engine == "scan"
    assert audience.notes == ["there are only 30 users"]


def test_embeddings_come_in_the_order_asked_with_the_missing_listed(service: Any) -> None:
    with Client() as client:
        found = client.embeddings(["7", "ghost", "3", "7"], kind="behaviour")
    assert isinstance(found, Embeddings)
    assert found.ids == ["7", "3"]
    assert found.missing == ["ghost"]
    assert found.kind == "behaviour"
    assert found.to_numpy().tolist() == [[7.0] * 4, [3.0] * 4]


def test_ids_come_from_any_iterable_but_not_from_one_string(service: Any) -> None:
    with Client() as client:
        assert client.embeddings(np.array(["1", "2"])).ids == ["1", "2"]
        assert client.embeddings(str(i) for i in range(3)).ids == ["0", "1", "2"]
        with pytest.raises(UsageError, match="expected a list of user ids, got '12'"):
            client.embeddings("12")


def test_snapshots_activation_rollback_and_health(service: Any) -> None:
    with Client() as client:
        listed = client.snapshots()
        assert (listed.live, [one.id for one in listed.snapshots]) == ("b_2", ["b_2", "a_1"])
        assert client.activate("a_1").live == "a_1"
        assert client.health().snapshot == "a_1"
        done = client.rollback()
        assert (done.live, done.previous) == ("b_2", "a_1")
        with pytest.raises(NotFound):
            client.activate("b_2")


def test_the_async_client_does_the_same(service: Any) -> None:
    async def story() -> None:
        async with AsyncClient() as client:
            both = await asyncio.gather(
                client.target(SENTENCE, size=3), client.embeddings(["3", "x"])
            )
            made = await client.tune(SENTENCE, ["1", "2", "3"], ["4", "5", "6"])
            assert len(await client.target(prompt=made, size=4)) == 4
            learnt = await client.tune(SENTENCE, list("123"), list("456"), method="tokens")
            assert (made.method, learnt.method) == ("posterior", "tokens")
            assert (both[0].ids, both[1].missing) == (["0", "1", "2"], ["x"])
            assert (await client.snapshots()).live == "b_2"
            assert (await client.activate("a_1")).previous == "b_2"
            assert (await client.rollback()).live == "b_2"
            assert (await client.health()).status == "ok"
            with pytest.raises(InvalidRequest):
                await client.target("", size=3)

    asyncio.run(story())


def test_both_clients_have_the_same_methods() -> None:
    def public(client: type) -> set[str]:
        return {name for name in vars(client) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)


@pytest.mark.parametrize(
    ("text", "size", "named"),
    [("", 5, "text"), (" ", 5, "text"), ("x" * 10_000, 5, "text"), ("x", 0, "size"),
     ("x", -1, "size")],
)  # fmt: skip
def test_a_wrong_request_is_not_sent(service: Any, text: str, size: int, named: str) -> None:
    with Client() as client, pytest.raises(InvalidRequest) as caught:
        client.target(text, size=size)
    assert caught.value.status == 422
    assert caught.value.errors[0].field == named
    assert named in str(caught.value)
    assert len(str(caught.value)) < 300
    assert service.requests == []


@pytest.mark.parametrize("snapshot", ["", "..", "a/b", "a?b", "a b", None])
def test_a_snapshot_id_cannot_change_the_path(service: Any, snapshot: Any) -> None:
    with Client() as client, pytest.raises(UsageError, match="snapshot: expected an id"):
        client.activate(snapshot)
    assert service.requests == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ApiError),
        (401, AuthenticationError),
        (403, PermissionDenied),
        (404, NotFound),
        (409, SpaceConflict),
        (413, TooLarge),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, ServerError),
        (503, Unavailable),
    ],
)
def test_each_status_is_its_own_error_with_a_remedy(
    service: Any, problem: Any, status: int, kind: type[ApiError]
) -> None:
    detail = "what happened here"
    service.scripted = [problem(status, detail, headers={"Retry-After": "900"})] * ATTEMPTS
    with Client(timeout=5) as client, pytest.raises(ApiError) as caught:
        client.snapshots()
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.detail, error.retry_after) == (status, detail, 900.0)
    assert str(error) == f"what happened here. {error.remedy}"
    assert error.remedy
    # Told to wait longer than anybody would, it did not.
    assert len(service.requests) == 1


def test_a_wrong_key_and_none_are_authentication_errors(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(api_key="wrong") as client, pytest.raises(AuthenticationError) as caught:
        client.snapshots()
    assert "OPENFOUND_API_KEY" in str(caught.value)
    assert "wrong" not in str(caught.value).replace("no or wrong key", "")
    monkeypatch.delenv("OPENFOUND_API_KEY")
    with Client() as client, pytest.raises(AuthenticationError):
        client.target(SENTENCE)


def test_an_invalid_request_found_by_the_server_names_the_fields() -> None:
    body = {"title": "Unprocessable Content", "status": 422, "detail": "The request is invalid."}
    body["errors"] = [{"field": "kind", "message": "search has no sentence tower"}]

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(422, json=body)

    with pytest.raises(InvalidRequest, match="kind: search has no sentence tower"):
        mocked(handler).target(SENTENCE, kind="search")


def test_an_error_that_is_no_problem_document_is_understood_too() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/healthz":
            return httpx.Response(404, text="<html>nginx</html>")
        return httpx.Response(502, json={"error": "bad gateway"})

    client = mocked(handler)
    with pytest.raises(ServerError, match="http://mock/v1/snapshots answered 502 Bad Gateway"):
        client.snapshots()
    with pytest.raises(NotFound, match="OPENFOUND_URL"):
        client.health()


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(200, text="<html>login</html>", headers={"content-type": "text/html"}),
        httpx.Response(200, json={"live": 3}),
        httpx.Response(200, content=b"{", headers={"content-type": "application/json"}),
        httpx.Response(301, headers={"location": "https://elsewhere/"}),
    ],
)
def test_a_foreign_answer_says_so(response: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer, match="OPENFOUND_URL"):
        mocked(lambda request: response).snapshots()


def test_a_broken_arrow_stream_says_so() -> None:
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    with pytest.raises(UnexpectedAnswer, match="Arrow stream"):
        mocked(lambda request: httpx.Response(200, content=b"xx", headers=headers)).target("x")


def test_nobody_at_the_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(ConnectionFailed) as caught:
        client.snapshots()
    assert url in str(caught.value)
    assert "OPENFOUND_URL" in str(caught.value)


def test_a_silent_service_times_out() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout=0.2) as client, pytest.raises(Timeout, match=r"within 0.2 s"):
            client.target(SENTENCE)

        async def story() -> None:
            async with AsyncClient(url, timeout=0.2) as client:
                with pytest.raises(Timeout):
                    await client.health()

        asyncio.run(story())


def test_a_connection_that_breaks_is_reported() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("peer closed connection", request=request)

    with pytest.raises(ConnectionFailed, match="broke"):
        mocked(handler).target(SENTENCE)


def test_the_key_is_sent_and_shown_nowhere(
    service: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Client() as client:
        client.target(SENTENCE)
        shown = [repr(client), repr(vars(client)), repr(client._http.headers)]
        service.scripted = [(401, {}, b"")]
        with pytest.raises(AuthenticationError) as caught:
            client.target(SENTENCE)
        shown += [str(caught.value), repr(caught.value)]
    assert service.requests[0]["headers"]["Authorization"] == f"Bearer {key}"
    assert caplog.records
    assert not [text for text in [*shown, caplog.text] if key in text]


def test_a_path_in_the_address_is_kept() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"status": "ok", "snapshot": "a"})

    Client("https://host/openfound/", transport=httpx.MockTransport(handler)).health()
    assert seen == ["https://host/openfound/healthz"]
