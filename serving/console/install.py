"""Put the console into an application."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import FastAPI
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
    # D3 as it lies in mpld3's package: draws SVG, and keeps to the strict policy.
    for path, place in (("d3", Path(str(files("mpld3"))) / "js"), ("static", _HERE / "static")):
        app.mount(f"/console/{path}", GZipMiddleware(StaticFiles(directory=place)))
    app.add_middleware(Gate)
    app.add_middleware(Sessions, secret=secret or new_secret())
