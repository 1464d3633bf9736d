"""Errors as RFC 9457 problem documents, and what guards every route.

Every error leaves as ``application/problem+json``: ours with the status of the table below,
FastAPI's own (404, 405, 422) translated, and anything unforeseen as a 500 that names only an
incident number, under which the log has the trace.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feature_repo.errors import (
    InputError,
    ManifestError,
    MissingKind,
    NoLiveSnapshot,
    OpenFoundError,
    SpaceMismatch,
    UnknownAudience,
    UnknownKey,
    UnknownPrompt,
    UnknownSnapshot,
    VectorsUnavailable,
)
from sdk.types import PROBLEM_JSON, FieldError, Problem, field_errors
from serving.live import CannotOpen
from serving.prompts import TuningBusy, TuningTooLong
from serving.webhook import DeliveryFailed

MAX_BODY: Final = 1 << 20
"""Longest request body, in bytes."""

STATUS: Final[dict[type[OpenFoundError], int]] = {
    UnknownSnapshot: 404,
    UnknownPrompt: 404,
    UnknownAudience: 404,
    UnknownKey: 404,
    MissingKind: 404,
    SpaceMismatch: 409,
    InputError: 422,
    # No Retry-After with these: waiting does not help.
    NoLiveSnapshot: 503,
    ManifestError: 503,
    CannotOpen: 503,
    VectorsUnavailable: 503,
    DeliveryFailed: 502,
    TuningBusy: 503,
    TuningTooLong: 503,
}
RETRY_AFTER: Final[dict[type[Exception], int]] = {TuningBusy: 5}
"""Seconds after which asking again may well help."""

HEADERS: Final[dict[bytes, bytes]] = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
}
"""On every answer, whatever a route says."""
POLICY_HEADER: Final = b"content-security-policy"
POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
"""On every answer of a route that has no policy of its own, as pages must."""

log = logging.getLogger(__name__)


def problem(
    status: int,
    detail: str,
    *,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The response for one problem."""
    document = Problem.of(status, detail, errors or [])
    return Response(
        document.model_dump_json(), status, headers=dict(headers or {}), media_type=PROBLEM_JSON
    )


def add_handlers(app: FastAPI) -> None:
    """Translate all errors of ``app``'s routes, and guard them."""
    app.add_exception_handler(OpenFoundError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _http)
    app.add_middleware(Guard)


async def _ours(request: Request, error: Exception) -> Response:
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    if status == 500:
        return _incident(error)
    wait = RETRY_AFTER.get(type(error))
    return problem(status, str(error), headers=None if wait is None else {"Retry-After": str(wait)})


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(422, "The request is invalid.", errors=field_errors(error.errors()))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    status, detail = error.status_code, str(error.detail)
    if status == 400:  # FastAPI's word for a body that breaks the JSON parser, e.g. by its depth
        status, detail = 422, "The body cannot be read as JSON; it may be nested too deeply."
    if error.status_code == 404 and detail == "Not Found":
        detail = f"There is no {request.url.path} here; see /docs."
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{request.url.path} takes {allowed}, not {request.method}."
    return problem(status, detail, headers=error.headers)


def _incident(error: Exception) -> Response:
    number = secrets.token_hex(4)
    log.error("incident %s", number, exc_info=error)
    return problem(500, f"Something failed here. The log of the service says what: {number}.")


class Guard:
    """Around everything: limits the body, sets the headers, lets no exception through."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                kept = [pair for pair in message.get("headers", ()) if pair[0] not in HEADERS]
                if all(name != POLICY_HEADER for name, _ in kept):
                    kept.append((POLICY_HEADER, POLICY))
                message = {**message, "headers": [*kept, *HEADERS.items()]}
            await send(message)

        try:
            if _announced(scope) > MAX_BODY:
                raise _too_large()
            await self.app(scope, _limited(receive), guarded_send)
        except HTTPException as error:
            await problem(error.status_code, error.detail)(scope, receive, guarded_send)
        except Exception as error:
            if started:
                raise  # half an answer is out: break the connection, so that it does not pass
            await _incident(error)(scope, receive, guarded_send)


def _announced(scope: Scope) -> int:
    """The body's length by its header; 0 if it does not say."""
    value: Any = dict(scope["headers"]).get(b"content-length", b"")
    return int(value) if value.isdigit() else 0


def _limited(receive: Receive) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            raise _too_large()
        return message

    return limited


def _too_large() -> HTTPException:
    return HTTPException(413, f"The body is too large: expected at most {MAX_BODY:,} bytes.")
