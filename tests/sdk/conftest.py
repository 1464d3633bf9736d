"""Two small real HTTP servers for the SDK's tests: an OpenFound service and a Ray dashboard.

Both speak over loopback sockets, so that connecting, headers, streaming and time-outs are real.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from sdk import arrow
from sdk.types import (
    PROBLEM_JSON,
    EmbeddingsMeta,
    EmbeddingsRequest,
    Problem,
    Prompt,
    PromptRequest,
    TargetMeta,
    TargetRequest,
    field_errors,
)

AS_OF = datetime(2017, 11, 6, tzinfo=UTC)
KEY = "the-secret-key-of-the-tests"
Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    """The tests see nothing of the developer's own services, clusters and tokens."""
    for name in ("OPENFOUND_URL", "OPENFOUND_API_KEY", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server: Any = self.server
        asked = {"method": self.command, "path": self.path, "headers": dict(self.headers)}
        server.fake.requests.append(asked | {"body": body})
        status, headers, content = server.fake.reply(self.command, self.path, self.headers, body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """The tests' output is long enough."""


class _Fake:
    """A server on a free port; ``scripted`` replies go out before its own."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.scripted: list[Reply] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.fake = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def reply(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        if self.scripted:
            return self.scripted.pop(0)
        return self.answer(method, path, headers, body)

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def as_json(value: BaseModel | dict[str, Any], status: int = 200) -> Reply:
    text = value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value)
    return status, {"Content-Type": "application/json"}, text.encode()


def as_problem(status: int, detail: str, **more: Any) -> Reply:
    headers = {"Content-Type": PROBLEM_JSON} | more.pop("headers", {})
    return status, headers, Problem.of(status, detail, **more).model_dump_json().encode()


class FakeService(_Fake):
    """An OpenFound service with the users "0" to "29", whose vectors are [i, i, i, i]."""

    num_users = 30
    arrow = True

    def __init__(self) -> None:
        super().__init__()
        self.live, self.before = "b_2", "a_1"

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        if path == "/healthz":
            return as_json({"status": "ok", "snapshot": self.live})
        if headers.get("Authorization") != f"Bearer {KEY}":
            return as_problem(401, "no or wrong key")
        as_arrow = self.arrow and arrow.wants_arrow(headers.get("Accept"))
        try:
            if path == "/v1/target":
                return self._target(TargetRequest.model_validate_json(body), as_arrow)
            if path == "/v1/prompts":
                return self._tune(PromptRequest.model_validate_json(body))
            if path == "/v1/embeddings":
                return self._embeddings(EmbeddingsRequest.model_validate_json(body), as_arrow)
        except ValidationError as error:
            return as_problem(422, "The request is invalid.", errors=field_errors(error.errors()))
        return self._snapshots(path)

    def _target(self, request: TargetRequest, as_arrow: bool) -> Reply:
        size = min(request.size, self.num_users)
        notes = [f"there are only {size} users"] if size < request.size else []
        meta = TargetMeta(
            snapshot=self.live,
            space="space-1",
            as_of=AS_OF,
            horizon_days=28,
            engine="scan" if request.exact else "milvus",
            population=self.num_users,
            notes=notes,
        )
        ids = [str(i) for i in range(size)]
        scores = [1.0 - i / 64 for i in range(size)]
        if as_arrow:
            stream = b"".join(arrow.encode_audience(meta, ids, scores))
            return 200, {"Content-Type": arrow.ARROW_STREAM}, stream
        rows = [{"user_id": u, "score": s} for u, s in zip(ids, scores, strict=True)]
        return as_json(meta.model_dump(mode="json") | {"users": rows})

    def _tune(self, request: PromptRequest) -> Reply:
        made = Prompt(
            prompt="p" * 16,
            text=request.text,
            space="space-1",
            snapshot=self.live,
            kind=request.kind,
            positives=len(request.positives),
            negatives=len(request.negatives),
            created_at=AS_OF,
            method=request.method,
        )
        return as_json(made)

    def _embeddings(self, request: EmbeddingsRequest, as_arrow: bool) -> Reply:
        known = {str(i) for i in range(self.num_users)}
        found = [user for user in request.user_ids if user in known]
        meta = EmbeddingsMeta(
            snapshot=self.live,
            space="space-1",
            as_of=AS_OF,
            kind=request.kind,
            dim=4,
            missing=[user for user in request.user_ids if user not in known],
        )
        rows = [[float(user)] * 4 for user in found]
        if as_arrow:
            stream = b"".join(arrow.encode_embeddings(meta, found, rows))
            return 200, {"Content-Type": arrow.ARROW_STREAM}, stream
        listed = [{"user_id": u, "embedding": v} for u, v in zip(found, rows, strict=True)]
        return as_json(meta.model_dump(mode="json") | {"embeddings": listed})

    def _snapshots(self, path: str) -> Reply:
        if path == "/v1/snapshots":
            info = {"space": "space-1", "as_of": "2017-11-06", "trained_as_of": "2017-06-05"}
            info |= {"created_at": "2026-01-01T10:00:00Z", "kinds": ["fused"], "num_users": 30}
            ids = [self.live, self.before]
            listed = [info | {"id": one, "report": None} for one in ids]
            return as_json({"live": self.live, "snapshots": listed})
        if path == "/v1/rollback":
            self.live, self.before = self.before, self.live
            return as_json({"live": self.live, "previous": self.before})
        if path == f"/v1/snapshots/{self.before}/activate":
            self.live, self.before = self.before, self.live
            return as_json({"live": self.live, "previous": self.before})
        return as_problem(404, f"there is no {path}")


class FakeRay(_Fake):
    """A Ray dashboard's jobs; a job shows one more ``chapter`` of its log at each look."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.chapters = ["loading\n", "train", "ing 50%\n", "done ✓\n"]
        self.end = "SUCCEEDED"
        self.token: str | None = None

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> Reply:
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return self._text(403 if "Authorization" in headers else 401, "Unauthorized")
        if (method, path) == ("POST", "/api/jobs/"):
            return self._submit(json.loads(body))
        job, _, verb = path.removeprefix("/api/jobs/").partition("/")
        if job not in self.jobs:
            return self._text(404, f"Job {job} does not exist")
        if verb == "logs":
            self.looks[job] += 1
            return as_json({"logs": "".join(self.chapters[: self.looks[job]])})
        if verb == "stop":
            self.end = "STOPPED"
            return as_json({"stopped": True})
        return as_json(self.jobs[job] | {"status": self._status(job)})

    def _submit(self, asked: dict[str, Any]) -> Reply:
        job = asked["submission_id"]
        if job in self.jobs:
            text = "Traceback (most recent call last):\n  …\nRuntimeError: Request failed with "
            text += f"status code 400: ValueError: Job with submission_id {job} already exists."
            return self._text(500, text)
        self.looks[job] = 0
        self.jobs[job] = {"type": "SUBMISSION", "submission_id": job, "start_time": 1_000}
        self.jobs[job] |= {"entrypoint": asked["entrypoint"], "end_time": 4_000}
        return as_json({"job_id": job, "submission_id": job})

    def _status(self, job: str) -> str:
        if self.end == "STOPPED" or self.looks[job] >= len(self.chapters) - 1:
            return self.end
        return "RUNNING" if self.looks[job] else "PENDING"

    @staticmethod
    def _text(status: int, text: str) -> Reply:
        return status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeService]:
    """A running service, which the environment names."""
    fake = FakeService()
    monkeypatch.setenv("OPENFOUND_URL", fake.url)
    monkeypatch.setenv("OPENFOUND_API_KEY", KEY)
    yield fake
    fake.close()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    """A running Ray dashboard, which the environment names."""
    fake = FakeRay()
    monkeypatch.setenv("RAY_ADDRESS", fake.url)
    yield fake
    fake.close()


@pytest.fixture
def problem() -> Any:
    """Builds the reply for an RFC 9457 problem: ``problem(status, detail, errors=, headers=)``."""
    return as_problem


@pytest.fixture
def key() -> str:
    """The key that the fake service knows."""
    return KEY
