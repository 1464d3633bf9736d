"""How routes answer: documented errors, and the large answers as JSON or as Arrow streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from sdk.arrow import ARROW_STREAM
from sdk.types import Problem

_ERRORS: Final = {
    401: "No key, or an unknown one.",
    403: "The key may not do this.",
    404: "Unknown snapshot, kind, prompt or audience.",
    409: "Vectors of two spaces were about to meet.",
    413: "The request is too large.",
    422: "The request is invalid; `errors` names the fields.",
    429: "Too many requests; `Retry-After` says when to come back.",
    500: "A fault of the service.",
    502: "The webhook did not take what was sent.",
    503: "No live snapshot; not done in time; or, with `Retry-After`, too much load.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of error statuses, for ``responses`` of a route."""
    return {status: {"model": Problem, "description": _ERRORS[status]} for status in statuses}


BINARY: Final = {"type": "string", "format": "binary"}
ARROW: Final[dict[str, Any]] = {
    "description": "The answer, as JSON or as an Arrow stream (by `Accept`).",
    "content": {ARROW_STREAM: {"schema": BINARY}},
}


def json_rows(meta: BaseModel, name: str, rows: list[dict[str, Any]]) -> Response:
    """An answer with its rows under ``name``."""
    # Not through the models: a million users would be checked one by one to be written. And not by
    # json, which takes longer for one vector than the feature store takes to find it.
    content = orjson.dumps(meta.model_dump(mode="json") | {name: rows})
    return Response(content, media_type="application/json")


def arrow(pieces: Iterator[bytes]) -> Response:
    """An Arrow stream, sent as it is made."""
    return StreamingResponse(pieces, media_type=ARROW_STREAM, headers={"Vary": "Accept"})
