"""Put the console into an application."""

from __future__ import annotations

from importlib.metadata import distribution
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
    # D3 as it lies in mpld3's package, which need not be imported: that would bring matplotlib.
    d3 = Path(str(distribution("mpld3").locate_file("mpld3/js")))
    for path, place in (("d3", d3), ("static", _HERE / "static")):
        app.mount(f"/console/{path}", GZipMiddleware(StaticFiles(directory=place)))
    app.add_middleware(Gate)
    app.add_middleware(Sessions, secret=secret or new_secret())
