"""Routes of saved audiences; every change and every export goes into the audit log."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse

from sdk.arrow import encode_audience, wants_arrow
from sdk.saved import (
    AudienceChange,
    AudiencePage,
    Deleted,
    Delivery,
    ExportFormat,
    Overlap,
    OverlapRequest,
    Part,
    RerunAudience,
    SaveAudience,
    SavedAudience,
    SendAudience,
)
from sdk.types import TargetResponse
from serving.answers import ARROW, BINARY, arrow, errors, json_rows
from serving.audiences import SavedAudiences
from serving.auth import Who, guarded
from serving.exports import MEDIA_TYPES, SUFFIXES, export
from serving.webhook import Webhook


async def _audiences(request: Request) -> SavedAudiences:
    found: SavedAudiences = request.app.state.audiences
    return found


async def _webhook(request: Request) -> Webhook:
    found: Webhook = request.app.state.webhook
    return found


Saved = Annotated[SavedAudiences, Depends(_audiences)]
AudienceId = Annotated[str, Path(max_length=128, description="Id of the audience.")]
_USUAL: Final = (401, 403, 404, 422, 429, 500, 503)
_CHANGE: Final = (401, 403, 404, 409, 413, 422, 429, 500, 503)

routes = guarded("read", "target", tag="audiences")
changes = guarded("target", tag="audiences")
exports = guarded("export", tag="audiences")


@changes.post("/audiences", status_code=201, responses=errors(*_CHANGE))
def save(asked: SaveAudience, audiences: Saved, who: Who) -> SavedAudience:
    """Run a plan on the live snapshot and keep it, with its members, under a name."""
    return audiences.save(asked, who.name)


@routes.get("/audiences", responses=errors(*_USUAL))
def list_audiences(
    audiences: Saved,
    limit: Annotated[int, Query(ge=1, le=200, description="How many at most.")] = 50,
    after: Annotated[
        str | None, Query(max_length=128, description="`next` of the page before.")
    ] = None,
) -> AudiencePage:
    """List the saved audiences, newest first."""
    return audiences.page(limit, after)


@routes.post("/audiences/overlap", responses=errors(401, 403, 404, 413, 422, 429, 500, 503))
def overlap(asked: OverlapRequest, audiences: Saved) -> Overlap:
    """How many members saved audiences share, pair by pair."""
    return audiences.overlap(asked.ids)


@routes.get("/audiences/{audience}", responses=errors(*_USUAL))
def get_audience(audience: AudienceId, audiences: Saved) -> SavedAudience:
    """One saved audience with its latest run."""
    return audiences.get(audience)


@routes.get(
    "/audiences/{audience}/members",
    response_model=TargetResponse,
    responses={200: ARROW, **errors(*_USUAL)},
)
def members(
    request: Request,
    audience: AudienceId,
    audiences: Saved,
    who: Who,
    part: Annotated[Part, Query(description="All, without the hold-out, or only it.")] = "all",
) -> Response:
    """The members at the latest run."""
    found = audiences.members(audience, part)
    audiences.store.note(who.name, "members", audience, part=part, users=len(found.ids))
    if wants_arrow(request.headers.get("accept")):
        return arrow(encode_audience(found.meta, found.ids, found.scores))
    pairs = zip(found.user_ids, found.scores.tolist(), strict=True)
    return json_rows(found.meta, "users", [{"user_id": u, "score": s} for u, s in pairs])


@changes.post("/audiences/{audience}/run", responses=errors(*_CHANGE))
def run(audience: AudienceId, asked: RerunAudience, audiences: Saved, who: Who) -> AudienceChange:
    """Run an audience again, on the live snapshot or on another, and say what changed."""
    return audiences.rerun(audience, asked.snapshot, who.name)


@changes.delete("/audiences/{audience}", responses=errors(401, 403, 404, 422, 429, 500, 503))
def delete_audience(audience: AudienceId, audiences: Saved, who: Who) -> Deleted:
    """Forget an audience and its members."""
    audiences.delete(audience, who.name)
    return Deleted(id=audience)


@exports.get(
    "/audiences/{audience}/export",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {
                kind: {"schema": {"type": "object"} if name == "iab" else BINARY}
                for name, kind in MEDIA_TYPES.items()
            },
        },
        **errors(*_USUAL),
    },
)
def export_audience(
    audience: AudienceId,
    audiences: Saved,
    who: Who,
    format: Annotated[ExportFormat, Query(description="Kind of file.")] = "parquet",
    part: Annotated[Part, Query(description="The hold-out is left out unless told.")] = "target",
) -> Response:
    """The members as a file; as `iab`, the audience's vector with model and expiry."""
    saved = audiences.get(audience)
    found = audiences.members(audience, part)
    pieces = export(found, format, name=saved.name, key=saved.id)
    users = 0 if format == "iab" else len(found.ids)
    audiences.store.note(who.name, "export", audience, format=format, part=part, users=users)
    name = f"{audience}.{SUFFIXES[format]}"
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces, media_type=MEDIA_TYPES[format], headers=disposition)


@exports.post(
    "/audiences/{audience}/send",
    responses=errors(401, 403, 404, 413, 422, 429, 500, 502, 503),
)
def send(
    audience: AudienceId,
    asked: SendAudience,
    audiences: Saved,
    who: Who,
    webhook: Annotated[Webhook, Depends(_webhook)],
) -> Delivery:
    """Send the members to a webhook: signed, retried, never to private addresses unless allowed."""
    saved = audiences.get(audience)
    found = audiences.members(audience, asked.part)
    about = {
        "audience": saved.id, "name": saved.name, "run": saved.latest.run, "part": asked.part,
        "snapshot": found.meta.snapshot, "space": found.meta.space,
        "as_of": found.meta.as_of.isoformat(),
    }  # fmt: skip
    key = f"{saved.id}-{saved.latest.run}-{asked.part}"
    audiences.store.note(who.name, "send", audience, url=asked.url[:300], users=len(found.ids))
    sent = webhook.send(asked.url, found, about=about, key=key)
    audiences.store.note(who.name, "sent", audience, url=asked.url[:300], attempts=sent.attempts)
    return Delivery(
        audience=saved.id, users=sent.users, requests=sent.requests, attempts=sent.attempts
    )
