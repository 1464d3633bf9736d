"""The HTTP interface, asked over a real socket by the SDK and by plain HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pyarrow as pa
import pytest
import uvicorn

import sdk
from feature_repo.errors import VectorsUnavailable
from sdk.arrow import ARROW_STREAM
from sdk.types import PROBLEM_JSON, EmbeddingsResponse, Problem, TargetRequest, TargetResponse
from serving.api import create_app
from serving.auth import ApiKeys
from serving.nearest import Nearest
from serving.problems import MAX_BODY
from serving.targeting import Targeting

KEY, READER = "the-key", "the-reader"
TEXT = "households that will buy diapers"


class Server:
    """uvicorn in a thread, on a free port."""

    def __init__(self, app: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()


def _no_milvus() -> Any:
    raise VectorsUnavailable("nothing answers")


@pytest.fixture
def targeting(world: Any) -> Targeting:
    return Targeting(world.live(), Nearest(_no_milvus))


@pytest.fixture
def server(targeting: Targeting) -> Iterator[Server]:
    server = Server(create_app(targeting, ApiKeys.parse(f"{KEY},{READER}:read")))
    yield server
    server.close()


@pytest.fixture
def client(server: Server) -> Iterator[sdk.Client]:
    with sdk.Client(server.url, api_key=KEY, sleep=lambda _: None) as client:
        yield client


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        yield client


def check_problem(response: httpx.Response, status: int, *words: str) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM_JSON
    problem = Problem.model_validate_json(response.content)
    assert problem.status == status and problem.title
    for word in words:
        assert word in response.text
    return problem


# --- answers


def test_the_sdk_gets_what_targeting_found(
    world: Any, client: sdk.Client, targeting: Targeting
) -> None:
    manifest = world.publish(1, live=True)
    audience = client.target(TEXT, size=100)
    direct = targeting.target(TargetRequest(text=TEXT, size=100))
    assert audience.ids == direct.user_ids and audience.scores == direct.scores.tolist()
    assert audience.meta == direct.meta
    assert "only 40 users" in audience.meta.notes[0] and "Milvus is away" in audience.meta.notes[1]
    found = client.embeddings(["u3", "nobody", "u1"], kind="behaviour")
    assert found.ids == ["u3", "u1"] and found.meta.missing == ["nobody"]
    assert client.health().snapshot == client.snapshots().live == manifest.id


def test_json_and_arrow_say_the_same(world: Any, http: httpx.Client) -> None:
    world.publish(1, live=True)
    for path, body, model, rows in (
        ("/v1/target", {"text": TEXT, "size": 5}, TargetResponse, "users"),
        ("/v1/embeddings", {"user_ids": ["u2", "x", "u1"]}, EmbeddingsResponse, "embeddings"),
    ):
        plain = http.post(path, json=body)
        assert plain.headers["content-type"] == "application/json"
        arrow = http.post(path, json=body, headers={"Accept": ARROW_STREAM})
        assert arrow.headers["content-type"] == ARROW_STREAM
        table = pa.ipc.open_stream(arrow.content).read_all()
        assert table.to_pylist() == plain.json()[rows]
        meta = json.loads(table.schema.metadata[b"openfound"])
        assert meta == {name: value for name, value in plain.json().items() if name != rows}
        model.model_validate_json(plain.content)


def test_activation_and_rollback(world: Any, client: sdk.Client) -> None:
    first, second = world.publish(1, live=True), world.publish(2)
    assert client.activate(second.id).previous == first.id
    assert client.target(TEXT).meta.snapshot == second.id
    assert client.rollback().live == first.id
    assert client.target(TEXT).meta.snapshot == first.id
    assert [info.id for info in client.snapshots().snapshots] == [second.id, first.id]


# --- errors


def test_the_sdk_raises_typed_errors(world: Any, client: sdk.Client, server: Server) -> None:
    with pytest.raises(sdk.Unavailable, match=r"ray_jobs\.pipeline") as caught:
        client.target(TEXT)
    assert caught.value.retry_after is None  # waiting does not help, so the SDK does not
    world.publish(1, live=True)
    with pytest.raises(sdk.NotFound, match="got 'taste'"):
        client.target(TEXT, kind="taste")
    with pytest.raises(sdk.InvalidRequest, match="aligned with"):
        client.target(TEXT, kind="behaviour")
    with pytest.raises(sdk.NotFound, match="got '2017_x'"):
        client.activate("2017_x")
    with pytest.raises(sdk.NotFound, match="nothing to roll back to"):
        client.rollback()
    with pytest.raises(sdk.AuthenticationError, match="unknown"):
        sdk.Client(server.url, api_key="wrong").target(TEXT)
    with pytest.raises(sdk.AuthenticationError, match="No API key"):
        sdk.Client(server.url).snapshots()


def test_weights_that_do_not_fit_are_a_conflict(world: Any, client: sdk.Client) -> None:
    world.publish(1, live=True)
    (world.checkpoint() / "model.safetensors").write_bytes(b"others")
    with pytest.raises(sdk.SpaceConflict, match="one space"):
        client.target(TEXT)
    with pytest.raises(sdk.Unavailable, match="one space"):
        client.health()


def test_a_corrupt_manifest_is_named(world: Any, client: sdk.Client) -> None:
    manifest = world.publish(1, live=True)
    (world.workspace.snapshots / manifest.id / "manifest.json").write_text("{")
    for ask in (client.health, lambda: client.target(TEXT)):
        with pytest.raises(sdk.Unavailable, match=r"manifest\.json cannot be read"):
            ask()


def test_a_reader_may_ask_but_not_change(world: Any, server: Server) -> None:
    manifest = world.publish(1, live=True)
    with sdk.Client(server.url, api_key=READER) as reader:
        assert reader.target(TEXT).ids and reader.snapshots().live == manifest.id
        assert reader.embeddings(["u1"]).ids == ["u1"]
        for change in (lambda: reader.activate(manifest.id), reader.rollback):
            with pytest.raises(sdk.PermissionDenied, match="may read"):
                change()


@pytest.mark.parametrize(
    "route", ["POST /v1/target", "POST /v1/embeddings", "POST /v1/prompts", "GET /v1/snapshots",
              "POST /v1/snapshots/x/activate", "POST /v1/rollback"],
)  # fmt: skip
def test_every_route_needs_a_key(server: Server, route: str) -> None:
    method, path = route.split()
    wrong = ["", KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY} {KEY}"]
    for headers in [{}, {"X-API-Key": KEY}, *({"Authorization": value} for value in wrong)]:
        url = server.url + path
        response = httpx.request(method, url, headers=headers, json={}, trust_env=False)
        check_problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"


def test_health_needs_no_key(world: Any, server: Server) -> None:
    url = f"{server.url}/healthz"
    check_problem(httpx.get(url, trust_env=False), 503, "ray_jobs.pipeline")
    manifest = world.publish(1, live=True)
    answer = httpx.get(url, trust_env=False)
    assert answer.json() == {"status": "ok", "snapshot": manifest.id}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("target", {"text": "", "size": 5}, "text"),
        ("target", {"text": " \n\t "}, "text"),
        ("target", {"text": "x" * 10_000}, "text"),
        ("target", {}, "text"),
        ("target", {"text": TEXT, "size": 0}, "size"),
        ("target", {"text": TEXT, "size": -1}, "size"),
        ("target", {"text": TEXT, "size": 2.5}, "size"),
        ("target", {"text": TEXT, "size": "10"}, "size"),
        ("target", {"text": TEXT, "siez": 10}, "siez"),
        ("target", {"text": TEXT, "exact": "yes"}, "exact"),
        ("target", {"text": ["a"]}, "text"),
        ("target", {"text": "\ud800"}, "text"),
        ("target", [], "body"),
        ("target", None, "body"),
        ("embeddings", {"user_ids": []}, "user_ids"),
        ("embeddings", {"user_ids": ["a", ""]}, "user_ids.1"),
        ("embeddings", {"user_ids": [1]}, "user_ids.0"),
        ("embeddings", {"user_ids": ["a"] * 10_001}, "user_ids"),
    ],
)
def test_invalid_requests_name_the_field(
    world: Any, http: httpx.Client, path: str, body: Any, field: str
) -> None:
    world.publish(1, live=True)
    headers = {"Content-Type": "application/json"}
    response = http.post(f"/v1/{path}", content=json.dumps(body), headers=headers)
    problem = check_problem(response, 422)
    assert field in [error.field for error in problem.errors]
    assert len(response.content) < 5_000


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b'{"text": NaN}', b"[" * 100_000])
def test_what_is_not_json_is_refused(http: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    response = http.post("/v1/target", content=content, headers=headers)
    check_problem(response, 422)


def test_size_is_bounded_by_nothing_but_the_population(world: Any, http: httpx.Client) -> None:
    world.publish(1, live=True)
    for size in (2**31, 2**63, 10**30):
        answer = http.post("/v1/target", json={"text": TEXT, "size": size}).json()
        assert len(answer["users"]) == 40 and answer["engine"] == "scan"


def test_large_bodies_are_refused_announced_or_not(http: httpx.Client) -> None:
    body = json.dumps({"text": "x" * MAX_BODY}).encode()
    pieces = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
    for content in (body, pieces):
        response = http.post("/v1/target", content=content)
        check_problem(response, 413, "1,048,576 bytes")


def test_unknown_routes_and_methods_are_problems_too(http: httpx.Client) -> None:
    check_problem(http.get("/v1/nonsense"), 404, "/v1/nonsense")
    response = http.get("/v1/target")
    check_problem(response, 405, "takes POST, not GET")
    assert response.headers["allow"] == "POST"
    check_problem(http.post("/v1/snapshots/%2e%2e%2fetc/activate"), 404)


def test_a_fault_shows_no_internals(world: Any, http: httpx.Client, targeting: Targeting) -> None:
    def fails() -> Any:
        raise RuntimeError("password=hunter2")

    targeting.live.get = fails  # type: ignore[method-assign]
    for response in (http.post("/v1/target", json={"text": TEXT}), http.get("/healthz")):
        check_problem(response, 500, "log of the service")
        assert "hunter2" not in response.text and "RuntimeError" not in response.text


def test_every_answer_carries_the_security_headers(world: Any, http: httpx.Client) -> None:
    world.publish(1, live=True)
    responses = [http.get("/healthz"), http.get("/nothing"), http.post("/v1/target", json={}),
                 http.post("/v1/target", json={"text": TEXT}), http.get("/docs"),
                 http.post("/v1/target", content=b"x" * (MAX_BODY + 1))]  # fmt: skip
    for response in responses:
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["content-security-policy"].startswith("default-src 'none'; ")


def test_the_reference_needs_a_key_and_nothing_from_elsewhere(server: Server) -> None:
    for path in ("/docs", "/openapi.json"):
        url = server.url + path
        refused = httpx.get(url, trust_env=False)
        check_problem(refused, 401)
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert httpx.get(url, auth=("me", "wrong"), trust_env=False).status_code == 401
        for way in ({"auth": ("me", READER)}, {"headers": {"Authorization": f"Bearer {READER}"}}):
            assert httpx.get(url, trust_env=False, **way).status_code == 200  # type: ignore[arg-type]
    page = httpx.get(f"{server.url}/docs", auth=("me", KEY), trust_env=False).text
    assert "POST /v1/target" in page and "href='#TargetRequest'" in page
    assert "<script" not in page and "http" not in page.replace("https address", "")


def test_deep_json_is_refused_by_its_depth(world: Any, http: httpx.Client) -> None:
    world.publish(1, live=True)
    headers = {"Content-Type": "application/json"}
    for depth in (20, 100, 900, 20_000):
        rule = '{"type":"not","rule":' * depth + '{"type":"users","ids":["1"]}' + "}" * depth
        body = f'{{"text": "x", "rules": {rule}}}'
        check_problem(http.post("/v1/target", content=body, headers=headers), 422)


def test_without_keys_everybody_may_do_everything(world: Any, targeting: Targeting) -> None:
    first, second = world.publish(1, live=True), world.publish(2)
    server = Server(create_app(targeting, None))
    try:
        with sdk.Client(server.url) as client:
            assert client.target(TEXT).meta.snapshot == first.id
            assert client.activate(second.id).live == second.id
    finally:
        server.close()


def test_openapi_documents_routes_errors_and_the_key(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert (document["info"]["title"], document["info"]["version"]) == ("OpenFound", "0.1.0")
    assert set(document["paths"]) == {
        "/healthz", "/v1/target", "/v1/lookalike", "/v1/plan", "/v1/reach", "/v1/prompts",
        "/v1/explain", "/v1/portrait",
        "/v1/embeddings", "/v1/snapshots", "/v1/rollback",
        "/v1/snapshots/{snapshot}/activate",
    }  # fmt: skip
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("security" in operation) == (path != "/healthz")
            for status, response in operation["responses"].items():
                if status >= "4":
                    schema = response["content"][PROBLEM_JSON]["schema"]
                    assert schema["$ref"].endswith("/Problem") and len(response["content"]) == 1
    target = document["paths"]["/v1/target"]["post"]["responses"]
    assert set(target["200"]["content"]) == {"application/json", ARROW_STREAM}
    assert {"401", "404", "409", "413", "422", "503"} <= set(target)
