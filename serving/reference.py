"""``/openapi.json``, and ``/docs``: the same as one page of HTML without a script.

Both need a key, as everything but ``/healthz`` does. A browser asks for a user name and a password:
the password is a key, the name may be anything. Nothing is loaded from elsewhere, so the page works
without a network and under the strictest policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from serving.auth import authenticated, principal

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #bbb;padding:.2rem .5rem;"
    "text-align:left;vertical-align:top}code{font-family:ui-monospace,monospace}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_basic = HTTPBasic(auto_error=False)

routes = APIRouter(include_in_schema=False)


async def reader(
    request: Request, basic: Annotated[HTTPBasicCredentials | None, Depends(_basic)]
) -> None:
    """Lets in whoever has a key, as a Bearer token or as the password that a browser asks for."""
    try:
        if basic is None:
            await principal(request)
        else:
            await authenticated(request, basic.password)
    except HTTPException as error:
        if error.status_code == 401:
            error.headers = {"WWW-Authenticate": 'Basic realm="OpenFound: a key", charset="UTF-8"'}
        raise


@routes.get("/openapi.json", dependencies=[Depends(reader)])
def openapi(request: Request) -> JSONResponse:
    """The interface as OpenAPI."""
    return JSONResponse(request.app.openapi())


@routes.get("/docs", dependencies=[Depends(reader)])
def docs(request: Request) -> HTMLResponse:
    """The interface as a page."""
    page = "".join(_page(request.app.openapi()))
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})


def _page(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
    yield f"<style>{_STYLE}</style><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
    yield f"<p>{escape(info['description'])} For programs: "
    yield "<a href=/openapi.json>openapi.json</a>.</p>"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method, path, operation)
    yield "<h1>Models</h1>"
    for name, schema in document["components"]["schemas"].items():
        yield from _model(name, schema)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', ''))}</p><table><tr><th>what<th>type<th>note"
    for one in operation.get("parameters", ()):
        yield _row(f"{one['in']} {one['name']}", _type(one["schema"]), one.get("description"))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield _row("body", _type(content["schema"]), None)
    for status, answer in operation["responses"].items():
        kinds = {_type(content["schema"]) for content in answer.get("content", {}).values()}
        yield _row(status, ", ".join(sorted(kinds)), answer["description"])
    yield "</table>"


def _model(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"<h2 id='{escape(name)}'><code>{escape(name)}</code></h2>"
    yield f"<p>{escape(schema.get('description', ''))}</p><table><tr><th>field<th>type<th>note"
    required = schema.get("required", ())
    for field, about in schema.get("properties", {}).items():
        mark = " *" if field in required else ""
        yield _row(f"{field}{mark}", _type(about), about.get("description"))
    yield "</table>"


def _row(name: str, kind: str, note: str | None) -> str:
    return f"<tr><td><code>{escape(name)}</code><td>{kind}<td>{escape(note or '')}"


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words, models as links; already escaped."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f"<a href='#{name}'>{name}</a>"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(map(_type, schema[several]))
    if "const" in schema or "enum" in schema:
        return " or ".join(escape(repr(v)) for v in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("format") or schema.get("type", "anything")))
