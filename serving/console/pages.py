"""The pages: sign in, ask, saved audiences, snapshots. What they ask later is asked by scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, HTTPException, Path, Request
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.concurrency import run_in_threadpool

from feature_repo.errors import NoLiveSnapshot, OpenFoundError
from feature_repo.manifest import Manifest
from serving.asked import Asked
from serving.audience_routes import Saved
from serving.console import numbers
from serving.console.session import CheckedForm, principal_in, sign_in, token

_pages: Final = Environment(
    loader=FileSystemLoader(FilePath(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_pages.filters.update(
    number=numbers.number, percent=numbers.percent, day=numbers.day, moment=numbers.moment
)
_SHOWN_AUDIENCES: Final = 100


class Page(APIRoute):
    """A route whose errors are pages, too."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        plain = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await plain(request)
            except NoLiveSnapshot as error:
                return render(request, "empty.html", status=503, problem=str(error))
            except OpenFoundError as error:
                return render(request, "error.html", status=503, problem=str(error))
            except HTTPException as error:
                if error.status_code == 401:
                    return RedirectResponse("/sign-in", 303)
                return render(request, "error.html", status=error.status_code, problem=error.detail)

        return handler


routes = APIRouter(route_class=Page, include_in_schema=False)


def render(request: Request, page: str, *, status: int = 200, **shown: Any) -> Response:
    """A page, with what every page knows."""
    signed_in = principal_in(request.session, request.app.state)
    html = _pages.get_template(page).render(
        token=token(request), open=request.app.state.ring is None, path=request.url.path,
        who=None if signed_in is None else signed_in.name,
        may=(lambda scope: signed_in is not None and signed_in.may(scope)), **shown,
    )  # fmt: skip
    return Response(html, status, media_type="text/html")


def _signed_in(request: Request) -> None:
    if principal_in(request.session, request.app.state) is None:
        raise HTTPException(401)


@routes.get("/")
def audience(request: Request, targeting: Asked) -> Response:
    """From a sentence to an audience."""
    _signed_in(request)
    manifest = targeting.live.get().manifest
    return render(request, "audience.html", manifest=manifest)


@routes.get("/audiences")
def audiences(request: Request, saved: Saved, targeting: Asked) -> Response:
    """The saved audiences."""
    _signed_in(request)
    page = saved.page(_SHOWN_AUDIENCES, None)
    return render(request, "audiences.html", audiences=page.audiences, more=page.next is not None)


@routes.get("/snapshots")
def snapshots(request: Request, targeting: Asked) -> Response:
    """The snapshots, and their reports."""
    _signed_in(request)
    store = targeting.live.store
    manifests: dict[str, Manifest] = {one.id: one for one in store.list()}
    return render(request, "snapshots.html", found=targeting.snapshots(), manifests=manifests)


@routes.get("/snapshots/{snapshot}/reports/{number}")
def report(
    request: Request,
    targeting: Asked,
    snapshot: Annotated[str, Path(max_length=200)],
    number: Annotated[int, Path(ge=0, le=100)],
) -> Response:
    """One report of a snapshot, as it was written."""
    _signed_in(request)
    store = targeting.live.store
    reports = store.load(snapshot).reports
    if number >= len(reports):
        raise HTTPException(404, f"Snapshot {snapshot} has {len(reports)} reports.")
    root = store.workspace.root.resolve()
    place = (root / reports[number]).resolve()
    if not place.is_relative_to(root):
        raise HTTPException(404, "This report does not lie in the workspace.")
    try:
        text = place.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HTTPException(404, f"This report cannot be read ({type(error).__name__}).") from error
    return render(request, "report.html", snapshot=snapshot, name=place.name, text=text)


@routes.get("/sign-in")
def ask_key(request: Request) -> Response:
    """Ask for a key."""
    if principal_in(request.session, request.app.state) is not None:
        return RedirectResponse("/", 303)
    return render(request, "sign_in.html", problem=None)


@routes.post("/sign-in", dependencies=[CheckedForm])
async def check_key(request: Request, key: Annotated[str, Form(max_length=500)] = "") -> Response:
    """Begin a session."""
    if not await run_in_threadpool(sign_in, request, key.strip()):
        return render(
            request, "sign_in.html", status=401, problem="This key is unknown. Check it, or ask "
            "whoever runs the service for one.",
        )  # fmt: skip
    return RedirectResponse("/", 303)


@routes.post("/sign-out", dependencies=[CheckedForm])
def sign_out(request: Request) -> Response:
    """End the session."""
    request.session.clear()
    return RedirectResponse("/sign-in", 303)
