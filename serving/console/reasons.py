"""Why a member is in an audience, asked by its place, so that its id need not leave the service."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import Field

from feature_repo.errors import InputError
from sdk.explaining import ExplainRequest
from sdk.fields import WireRequest
from sdk.selection import TargetRequest
from serving.asked import Asked
from serving.why import Why

_SHOWN = 3


class Place(WireRequest):
    """A member of an audience by its place."""

    target: TargetRequest
    place: int = Field(ge=0, le=10_000, description="From 0, the best.")


def _why(request: Request) -> Why:
    return Why(request.app.state.targeting, request.app.state.audiences)


def reasons(asked: Place, targeting: Asked, why: Annotated[Why, Depends(_why)]) -> dict[str, Any]:
    """What carried one member's score. Raises InputError for a place beyond the audience."""
    target = asked.target
    found = targeting.target(target)
    if asked.place >= len(found.ids):
        raise InputError(f"place: expected one below {len(found.ids)}, got {asked.place}")
    answer = why.explain(
        ExplainRequest(
            user_ids=[found.ids[asked.place].as_py()],
            text=target.text, prompt=target.prompt, rules=target.rules, kind=target.kind,
            rewrite=target.rewrite, split=target.split, top=_SHOWN,
        )
    )  # fmt: skip
    (user,) = answer.users
    return {"user": user.model_dump(mode="json", exclude={"user_id"}), "notes": answer.notes}
