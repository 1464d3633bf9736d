"""Put the console into an application."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from serving.console import asking, pages
from serving.console.gate import Gate, Sessions
from serving.console.maps import Maps
from serving.console.secret import new_secret

_HERE: Final = Path(__file__).parent


def install(app: FastAPI, secret: str | None = None) -> None:
    """Add the pages, what they ask, their files and their gate to ``app``."""
    app.state.maps = Maps(app.state.targeting.live.store.workspace)
    app.include_router(pages.routes)
    app.include_router(asking.routes)
    app.add_api_route("/console/d3.js", _d3, include_in_schema=False)
    static = GZipMiddleware(StaticFiles(directory=_HERE / "static"))
    app.mount("/console/static", static)
    app.add_middleware(Gate)
    app.add_middleware(Sessions, secret=secret or new_secret())


def _d3(request: Request) -> FileResponse:
    """D3 as it lies in mpld3's package: drawn as SVG, and it keeps to the strict policy."""
    return FileResponse(str(files("mpld3") / "js/d3.v5.min.js"), media_type="text/javascript")
