"""The HTTP interface: routes, documented with every error they can answer with.

    app = create_app(targeting, ApiKeys.parse(os.environ.get("OPENFOUND_API_KEYS")))

Requests and answers are the models of ``sdk.types``, so client and server cannot drift apart. The
two large answers leave as Arrow streams if the client accepts them, else as JSON. Routes are plain
functions: FastAPI runs them in threads, so that one slow scan does not stop the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from feature_repo.errors import OpenFoundError
from sdk.arrow import ARROW_STREAM, encode_audience, encode_embeddings, wants_arrow
from sdk.settings import installed_version
from sdk.types import (
    PROBLEM_JSON,
    Activation,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Health,
    Problem,
    Prompt,
    PromptRequest,
    SnapshotsResponse,
    TargetRequest,
    TargetResponse,
)
from serving.auth import ApiKeys, admin, reader
from serving.problems import add_handlers
from serving.targeting import Targeting

_ERRORS: Final = {
    401: "No key, or an unknown one.",
    403: "The key may not do this.",
    404: "Unknown snapshot, kind or prompt.",
    409: "Vectors of two spaces were about to meet.",
    413: "The request is too large.",
    422: "The request is invalid; `errors` names the fields.",
    429: "Too many requests; `Retry-After` says when to come back.",
    500: "A fault of the service.",
    503: "No live snapshot; or, with `Retry-After`, too much load.",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _ERRORS[status]} for status in statuses}


def _targeting(request: Request) -> Targeting:
    found: Targeting = request.app.state.targeting
    return found


Asked = Annotated[Targeting, Depends(_targeting)]
SnapshotId = Annotated[str, Path(max_length=200, description="Id of the snapshot.")]

_ARROW: Final[dict[str, Any]] = {
    "description": "The answer, as JSON or as an Arrow stream (by `Accept`).",
    "content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}},
}
_LARGE: Final = {200: _ARROW, **_errors(401, 404, 409, 413, 422, 429, 500, 503)}

open_routes = APIRouter()
read_routes = APIRouter(prefix="/v1", dependencies=[Depends(reader)])
admin_routes = APIRouter(prefix="/v1", dependencies=[Depends(admin)])


@read_routes.post("/target", response_model=TargetResponse, responses=_LARGE, tags=["audiences"])
def target(request: Request, asked: TargetRequest, targeting: Asked) -> Response:
    """Pick the users whom one sentence, or a tuned prompt, describes best."""
    found = targeting.target(asked)
    if wants_arrow(request.headers.get("accept")):
        return _arrow(encode_audience(found.meta, found.ids, found.scores))
    pairs = zip(found.user_ids, found.scores.tolist(), strict=True)
    return _json(found.meta, "users", [{"user_id": user, "score": score} for user, score in pairs])


@read_routes.post(
    "/embeddings", response_model=EmbeddingsResponse, responses=_LARGE, tags=["embeddings"]
)
def embeddings(request: Request, asked: EmbeddingsRequest, targeting: Asked) -> Response:
    """Fetch the stored embeddings of named users; unknown ones are listed as missing."""
    found = targeting.embeddings(asked)
    if wants_arrow(request.headers.get("accept")):
        return _arrow(encode_embeddings(found.meta, found.user_ids, found.vectors))
    pairs = zip(found.user_ids, found.vectors.tolist(), strict=True)
    rows = [{"user_id": user, "embedding": vector} for user, vector in pairs]
    return _json(found.meta, "embeddings", rows)


@admin_routes.post(
    "/prompts", responses=_errors(401, 403, 404, 409, 413, 422, 429, 500, 503), tags=["audiences"]
)
def tune(asked: PromptRequest, targeting: Asked) -> Prompt:
    """Sharpen a sentence with a few seed users. The prompt is kept, for as long as its space."""
    return targeting.tune(asked)


@read_routes.get("/snapshots", responses=_errors(401, 429, 500), tags=["snapshots"])
def snapshots(targeting: Asked) -> SnapshotsResponse:
    """List snapshots, newest first, and name the live one."""
    return targeting.snapshots()


@admin_routes.post(
    "/snapshots/{snapshot}/activate",
    responses=_errors(401, 403, 404, 409, 422, 429, 500, 503),
    tags=["snapshots"],
)
def activate(snapshot: SnapshotId, targeting: Asked) -> Activation:
    """Make a snapshot live. One that cannot be opened is refused, and nothing changes."""
    return targeting.activate(snapshot)


@admin_routes.post(
    "/rollback", responses=_errors(401, 403, 404, 409, 429, 500, 503), tags=["snapshots"]
)
def rollback(targeting: Asked) -> Activation:
    """Make the snapshot live that was live before."""
    return targeting.rollback()


@open_routes.get("/healthz", responses=_errors(503), tags=["service"])
def healthz(targeting: Asked) -> Health:
    """Whether the service is ready to answer. Needs no key."""
    try:
        return targeting.health()
    except OpenFoundError as error:  # whatever it is, it is not this request's fault
        raise HTTPException(503, str(error)) from error


def create_app(targeting: Targeting, keys: ApiKeys | None) -> FastAPI:
    """The application around ``targeting``. Without ``keys`` everybody may do everything."""
    app = FastAPI(
        title="OpenFound",
        version=installed_version(),
        description="User embeddings, and audiences from one sentence.",
        redoc_url=None,
    )
    app.state.targeting, app.state.keys = targeting, keys
    for routes in (open_routes, read_routes, admin_routes):
        app.include_router(routes)
    add_handlers(app)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """OpenAPI: errors are ``application/problem+json``, which FastAPI cannot be told."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in plain()["paths"].values():
                for operation in path.values():
                    _move_problems(operation["responses"])
        return plain()

    app.openapi = described  # type: ignore[method-assign]


def _move_problems(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        if status >= "4":
            content = response.get("content", {})
            response["content"] = {PROBLEM_JSON: content.pop("application/json")}


def _json(meta: BaseModel, name: str, rows: list[dict[str, Any]]) -> Response:
    # Not through the models: a million users would be checked one by one to be written.
    content = json.dumps(meta.model_dump(mode="json") | {name: rows}, allow_nan=False)
    return Response(content, media_type="application/json")


def _arrow(pieces: Iterator[bytes]) -> Response:
    return StreamingResponse(pieces, media_type=ARROW_STREAM, headers={"Vary": "Accept"})
