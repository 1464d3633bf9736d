"""The HTTP interface: routes, documented with every error they can answer with.

    app = create_app(targeting, ApiKeys.parse(os.environ.get("OPENFOUND_API_KEYS")))

Requests and answers are the models of ``sdk.types``, so client and server cannot drift apart. The
two large answers leave as Arrow streams if the client accepts them, else as JSON. Routes are plain
functions: FastAPI runs them in threads, so that one slow scan does not stop the others.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request
from fastapi.responses import Response

from feature_repo.errors import OpenFoundError
from sdk.arrow import encode_audience, encode_embeddings, wants_arrow
from sdk.planning import Plan, PlanRequest
from sdk.reaching import LookalikeRequest, Reach, ReachRequest
from sdk.settings import installed_version
from sdk.types import (
    PROBLEM_JSON,
    Activation,
    EmbeddingsRequest,
    EmbeddingsResponse,
    Health,
    Prompt,
    PromptRequest,
    SnapshotsResponse,
    TargetRequest,
    TargetResponse,
)
from serving import audience_routes
from serving.answers import ARROW, arrow, errors, json_rows
from serving.audiences import SavedAudiences
from serving.auth import ApiKeys, admin, reader
from serving.picked import Audience
from serving.problems import add_handlers
from serving.targeting import Targeting
from serving.webhook import Webhook


def _targeting(request: Request) -> Targeting:
    found: Targeting = request.app.state.targeting
    return found


Asked = Annotated[Targeting, Depends(_targeting)]
SnapshotId = Annotated[str, Path(max_length=200, description="Id of the snapshot.")]

_LARGE: Final = {200: ARROW, **errors(401, 404, 409, 413, 422, 429, 500, 503)}

open_routes = APIRouter()
read_routes = APIRouter(prefix="/v1", dependencies=[Depends(reader)])
admin_routes = APIRouter(prefix="/v1", dependencies=[Depends(admin)])


@read_routes.post("/target", response_model=TargetResponse, responses=_LARGE, tags=["audiences"])
def target(request: Request, asked: TargetRequest, targeting: Asked) -> Response:
    """Pick the users whom one sentence, or a tuned prompt, describes best."""
    return _audience(request, targeting.target(asked))


@read_routes.post("/lookalike", response_model=TargetResponse, responses=_LARGE, tags=["audiences"])
def lookalike(request: Request, asked: LookalikeRequest, targeting: Asked) -> Response:
    """Pick the users who are most like the seeds."""
    return _audience(request, targeting.lookalike(asked))


@read_routes.post("/plan", responses=errors(401, 404, 413, 422, 429, 500, 503), tags=["audiences"])
def plan(asked: PlanRequest, targeting: Asked) -> Plan:
    """How a sentence is understood: hard rules that filter, and the rest that ranks."""
    return targeting.plan(asked)


@read_routes.post(
    "/reach", responses=errors(401, 404, 409, 413, 422, 429, 500, 503), tags=["audiences"]
)
def reach(asked: ReachRequest, targeting: Asked) -> Reach:
    """How many users a demand fits how well, and what each size of audience would bring."""
    return targeting.reach(asked)


@read_routes.post(
    "/embeddings", response_model=EmbeddingsResponse, responses=_LARGE, tags=["embeddings"]
)
def embeddings(request: Request, asked: EmbeddingsRequest, targeting: Asked) -> Response:
    """Fetch the stored embeddings of named users; unknown ones are listed as missing."""
    found = targeting.embeddings(asked)
    if wants_arrow(request.headers.get("accept")):
        return arrow(encode_embeddings(found.meta, found.user_ids, found.vectors))
    pairs = zip(found.user_ids, found.vectors.tolist(), strict=True)
    rows = [{"user_id": user, "embedding": vector} for user, vector in pairs]
    return json_rows(found.meta, "embeddings", rows)


@admin_routes.post(
    "/prompts", responses=errors(401, 403, 404, 409, 413, 422, 429, 500, 503), tags=["audiences"]
)
def tune(asked: PromptRequest, targeting: Asked) -> Prompt:
    """Sharpen a sentence with a few seed users. The prompt is kept, for as long as its space."""
    return targeting.tune(asked)


@read_routes.get("/snapshots", responses=errors(401, 429, 500), tags=["snapshots"])
def snapshots(targeting: Asked) -> SnapshotsResponse:
    """List snapshots, newest first, and name the live one."""
    return targeting.snapshots()


@admin_routes.post(
    "/snapshots/{snapshot}/activate",
    responses=errors(401, 403, 404, 409, 422, 429, 500, 503),
    tags=["snapshots"],
)
def activate(snapshot: SnapshotId, targeting: Asked) -> Activation:
    """Make a snapshot live. One that cannot be opened is refused, and nothing changes."""
    return targeting.activate(snapshot)


@admin_routes.post(
    "/rollback", responses=errors(401, 403, 404, 409, 429, 500, 503), tags=["snapshots"]
)
def rollback(targeting: Asked) -> Activation:
    """Make the snapshot live that was live before."""
    return targeting.rollback()


@open_routes.get("/healthz", responses=errors(503), tags=["service"])
def healthz(targeting: Asked) -> Health:
    """Whether the service is ready to answer. Needs no key."""
    try:
        return targeting.health()
    except OpenFoundError as error:  # whatever it is, it is not this request's fault
        raise HTTPException(503, str(error)) from error


def create_app(
    targeting: Targeting,
    keys: ApiKeys | None,
    audiences: SavedAudiences | None = None,
    webhook: Webhook | None = None,
) -> FastAPI:
    """The application around ``targeting``. Without ``keys`` everybody may do everything.

    Args:
        audiences: saved ones; without them there are no routes about any.
        webhook: where they can be sent; by default as the environment says.
    """
    app = FastAPI(
        title="OpenFound",
        version=installed_version(),
        description="User embeddings, and audiences from one sentence.",
        redoc_url=None,
    )
    app.state.targeting, app.state.keys = targeting, keys
    for routes in (open_routes, read_routes, admin_routes):
        app.include_router(routes)
    if audiences is not None:
        app.state.audiences, app.state.webhook = audiences, webhook or Webhook.from_env()
        app.include_router(audience_routes.routes)
        app.include_router(audience_routes.changes)
    add_handlers(app)
    _describe_problems(app)
    return app


def _audience(request: Request, found: Audience) -> Response:
    if wants_arrow(request.headers.get("accept")):
        return arrow(encode_audience(found.meta, found.ids, found.scores))
    pairs = zip(found.user_ids, found.scores.tolist(), strict=True)
    rows = [{"user_id": user, "score": score} for user, score in pairs]
    return json_rows(found.meta, "users", rows)


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
