"""The HTTP interface: routes, documented with every error they can answer with.

    app = create_app(targeting, ApiKeys.parse(os.environ.get("OPENFOUND_API_KEYS")))

Requests and answers are the models of ``sdk.types``, so client and server cannot drift apart. The
two large answers leave as Arrow streams if the client accepts them, else as JSON. Routes are plain
functions: FastAPI runs them in threads, so that one slow scan does not stop the others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from fastapi import APIRouter, FastAPI, HTTPException, Path, Request
from fastapi.concurrency import run_in_threadpool
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
from serving import access_routes, audience_routes, reference, why_routes
from serving.answers import ARROW, arrow, errors, json_rows
from serving.asked import Asked
from serving.audiences import SavedAudiences
from serving.audit import AuditLog
from serving.auth import ApiKeys, Principal, Who, guarded
from serving.console.install import install
from serving.key_ring import KeyRing
from serving.keys import KeyStore
from serving.picked import Audience
from serving.problems import add_handlers
from serving.rates import Rates
from serving.targeting import Targeting
from serving.webhook import Webhook

SnapshotId = Annotated[str, Path(max_length=200, description="Id of the snapshot.")]

SHOWN_TEXT: Final = 300
"""Characters of a sentence that the audit log keeps."""
_LARGE: Final = {200: ARROW, **errors(401, 403, 404, 409, 413, 422, 429, 500, 503)}

open_routes = APIRouter()
any_routes, admin_routes = guarded(), guarded("admin")
read_routes, ask_routes, keep_routes = guarded("read"), guarded("read", "target"), guarded("target")


@ask_routes.post("/target", response_model=TargetResponse, responses=_LARGE, tags=["audiences"])
def target(request: Request, asked: TargetRequest, targeting: Asked, who: Who) -> Response:
    """Pick the users whom one sentence, or a tuned prompt, describes best."""
    return _audience(request, targeting.target(asked), who, "target", text=_short(asked.text))


@ask_routes.post("/lookalike", response_model=TargetResponse, responses=_LARGE, tags=["audiences"])
def lookalike(request: Request, asked: LookalikeRequest, targeting: Asked, who: Who) -> Response:
    """Pick the users who are most like the seeds."""
    found = targeting.lookalike(asked)
    return _audience(request, found, who, "lookalike", seeds=len(asked.seeds))


@ask_routes.post(
    "/plan", responses=errors(401, 403, 404, 413, 422, 429, 500, 503), tags=["audiences"]
)
def plan(asked: PlanRequest, targeting: Asked) -> Plan:
    """How a sentence is understood: hard rules that filter, and the rest that ranks."""
    return targeting.plan(asked)


@ask_routes.post(
    "/reach", responses=errors(401, 403, 404, 409, 413, 422, 429, 500, 503), tags=["audiences"]
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


@keep_routes.post(
    "/prompts", responses=errors(401, 403, 404, 409, 413, 422, 429, 500, 503), tags=["audiences"]
)
def tune(request: Request, asked: PromptRequest, targeting: Asked, who: Who) -> Prompt:
    """Sharpen a sentence with a few seed users. The prompt is kept, for as long as its space."""
    made = targeting.tune(asked)
    about = {"kind": made.kind, "method": made.method}
    _note(request, who, "prompt", prompt=made.prompt, text=_short(made.text), **about)
    return made


@any_routes.get("/snapshots", responses=errors(401, 429, 500), tags=["snapshots"])
def snapshots(targeting: Asked) -> SnapshotsResponse:
    """List snapshots, newest first, and name the live one."""
    return targeting.snapshots()


@admin_routes.post(
    "/snapshots/{snapshot}/activate",
    responses=errors(401, 403, 404, 409, 422, 429, 500, 503),
    tags=["snapshots"],
)
def activate(request: Request, snapshot: SnapshotId, targeting: Asked, who: Who) -> Activation:
    """Make a snapshot live. One that cannot be opened is refused, and nothing changes."""
    done = targeting.activate(snapshot)
    _note(request, who, "activate", live=done.live, previous=done.previous)
    return done


@admin_routes.post(
    "/rollback", responses=errors(401, 403, 404, 409, 429, 500, 503), tags=["snapshots"]
)
def rollback(request: Request, targeting: Asked, who: Who) -> Activation:
    """Make the snapshot live that was live before."""
    done = targeting.rollback()
    _note(request, who, "rollback", live=done.live, previous=done.previous)
    return done


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
    *,
    kept_keys: KeyStore | None = None,
    rates: Rates | None = None,
    console_secret: str | None = None,
) -> FastAPI:
    """The application around ``targeting``. Without ``keys`` everybody may do everything.

    Args:
        audiences: saved ones; without them there are no routes about any, no audit log and no
            console.
        webhook: where they can be sent; by default as the environment says.
        kept_keys: keys of the database; without them only those of the environment are known.
        rates: how often a key may ask; by default as the environment says.
        console_secret: what the console's sessions are signed with; a new one by default.
    """
    app = FastAPI(
        title="OpenFound",
        version=installed_version(),
        description="User embeddings, and audiences from one sentence.",
        lifespan=_lifespan,
        openapi_url=None,  # serving.reference has it, behind a key and without a CDN
    )
    app.state.targeting, app.state.rates = targeting, rates or Rates.from_env()
    app.state.ring = None if keys is None else KeyRing(keys, kept_keys)
    app.state.audit = None if audiences is None else audiences.store.log
    app.include_router(reference.routes)
    app.include_router(why_routes.routes)
    for routes in (open_routes, any_routes, read_routes, ask_routes, keep_routes, admin_routes):
        app.include_router(routes)
    if audiences is not None:
        app.state.audiences, app.state.webhook = audiences, webhook or Webhook.from_env()
        app.include_router(audience_routes.routes)
        app.include_router(audience_routes.changes)
        app.include_router(audience_routes.exports)
        install(app, console_secret)
    if audiences is not None and kept_keys is not None:
        app.state.kept_keys = kept_keys
        app.include_router(access_routes.routes)
    add_handlers(app)
    _describe_problems(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    if app.state.audit is not None:
        await run_in_threadpool(app.state.audit.flush)


def _note(request: Request, who: Principal, action: str, **detail: Any) -> None:
    log: AuditLog | None = request.app.state.audit
    if log is not None:
        log.note(who.name, action, **detail)


def _short(text: str | None) -> str | None:
    return text if text is None else text[:SHOWN_TEXT]


def _audience(
    request: Request, found: Audience, who: Principal, action: str, **detail: Any
) -> Response:
    """An audience as JSON or Arrow, once it is in the audit log."""
    log: AuditLog | None = request.app.state.audit
    if log is not None:
        log.later(who.name, action, snapshot=found.meta.snapshot, users=len(found.ids), **detail)
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
