"""What stands around the console: its sessions, its policy, and its way to the HTTP interface.

A page asks ``/console/api/target`` as a program asks ``/v1/target``: the gate looks the session's
key up, refuses what another site may have made the browser send, and passes the request on. So the
browser never holds the key, there is one route for everything, and a cookie alone opens no ``/v1``.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.sessions import SessionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.console.session import principal_in, token_fits
from serving.problems import problem

COOKIE: Final = "openfound_console"
HOURS: Final = 12
API: Final = "/console/api/"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_PAGES: Final = frozenset({"/", "/sign-in", "/sign-out", "/audiences", "/snapshots"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def is_ours(path: str) -> bool:
    """Whether a path belongs to the console."""
    return path in _PAGES or path.startswith(("/console/", "/snapshots/"))


class Sessions:
    """Starlette's signed sessions for the console's paths; ``Secure`` wherever there is TLS."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._plain, self._secure = (
            SessionMiddleware(
                app, secret, session_cookie=COOKIE, max_age=HOURS * 3600, same_site="strict",
                https_only=secure,
            )
            for secure in (False, True)
        )  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and is_ours(scope["path"]):
            app = self._secure if scope["scheme"] == "https" else self._plain
        await app(scope, receive, send)


class Gate:
    """The policy on every answer of the console, and the check of what comes in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_ours(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        try:
            check_origin(scope)
            if scope["path"].startswith("/console/") and not _is_open(scope["path"]):
                scope = await _admitted(scope)
        except HTTPException as error:
            told = problem(error.status_code, error.detail, headers=error.headers)
            await told(scope, receive, with_policy)
            return
        await self._app(scope, receive, with_policy)


def check_origin(scope: Scope) -> None:
    """Refuse what another site made the browser send. Raises HTTPException 403."""
    headers = Headers(scope=scope)
    if scope["method"] in _SAFE and not scope["path"].startswith(API):
        return  # a link from elsewhere may lead here; its answer stays with the browser
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:  # no page can forge it, and no proxy changes it
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
    if foreign:
        raise HTTPException(403, "This request came from another site, so it was refused.")


def _is_open(path: str) -> bool:
    return path.startswith(("/console/static/", "/console/d3/"))


async def _admitted(scope: Scope) -> Scope:
    """The scope with the session's principal; under ``/console/api`` it becomes the interface's."""
    session = scope["session"]
    state = scope["app"].state
    if state.ring is not None and state.ring.due():
        await run_in_threadpool(state.ring.refresh)  # not on the event loop
    who = principal_in(session, state)
    if who is None:
        raise HTTPException(401, "Your session has ended. Sign in again.")
    if scope["method"] not in _SAFE and not token_fits(
        session, Headers(scope=scope).get("x-csrf-token")
    ):
        raise HTTPException(403, "This page is out of date. Reload it, and try again.")
    await state.rates.admit(who)
    scope = {**scope, "state": {**scope.get("state", {}), "principal": who}}
    if scope["path"].startswith(API):
        path = "/v1/" + scope["path"].removeprefix(API)
        scope |= {"path": path, "raw_path": path.encode()}
    return scope
