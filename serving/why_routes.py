"""Routes that say why: what carried a score, and what tells an audience from everybody."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends, Request

from sdk.explaining import ExplainRequest, Explanations, Portrait, PortraitRequest
from serving.answers import errors
from serving.auth import guarded
from serving.why import Why


def _why(request: Request) -> Why:
    return Why(request.app.state.targeting, getattr(request.app.state, "audiences", None))


Asked = Annotated[Why, Depends(_why)]
_ERRORS: Final = errors(401, 403, 404, 409, 413, 422, 429, 500, 503)

routes = guarded("read", "target", tag="audiences")


@routes.post("/explain", responses=_ERRORS)
def explain(asked: ExplainRequest, why: Asked) -> Explanations:
    """Which past events and profile fields carried the scores of up to 20 users."""
    return why.explain(asked)


@routes.post("/portrait", responses=_ERRORS)
def portrait(asked: PortraitRequest, why: Asked) -> Portrait:
    """What an audience did and is more often than everybody, with lifts."""
    return why.portrait(asked)
