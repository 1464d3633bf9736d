"""Who asks, and what they may do: one :class:`Principal` per request.

    routes = guarded("target")                   # or dependencies=[Depends(needs("target"))]
    def route(who: Who) -> …                     # the principal itself
    principal_of(key, request.app.state)         # the same, from a key that came another way

Scopes: ``read`` asks anything and changes nothing (embeddings, snapshots, audiences); ``target``
picks audiences and keeps them, without embeddings; ``export`` takes kept audiences out, as files or
to webhooks; ``admin`` may do everything, and alone manages keys, snapshots and the audit log.

Keys come from ``OPENFOUND_API_KEYS`` (:class:`ApiKeys`) and from the service's database
(``serving.keys``), in both as SHA-256 digests only. They must be long and random (ours have 256
bits; ``openssl rand -hex 32``): a plain digest protects no others, and needs no salt for these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from feature_repo.errors import InputError
from sdk.access import SCOPES, Scope

if TYPE_CHECKING:
    from serving.key_ring import KeyRing
    from serving.rates import Rates

KEYS_VARIABLE: Final = "OPENFOUND_API_KEYS"

bearer = HTTPBearer(
    auto_error=False, description="A key of `OPENFOUND_API_KEYS`, or one made by `/v1/keys`."
)


@dataclass(frozen=True)
class Principal:
    """Who asks: a name for the audit log, what it may do, and its own rate limit if it has one."""

    name: str
    scopes: frozenset[Scope]
    rate: str | None = None

    def may(self, *scopes: Scope) -> bool:
        """Whether it has one of these scopes; ``admin`` has all."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)


ANYBODY: Final = Principal("anybody", frozenset(SCOPES))
"""Everybody, if the service was started with --insecure."""


class ApiKeys:
    """The keys of the environment, as digests (hexadecimal SHA-256 → scopes)."""

    def __init__(self, digests: Mapping[str, frozenset[Scope]]) -> None:
        self.digests = dict(digests)

    @classmethod
    def parse(cls, text: str | None) -> ApiKeys | None:
        """The keys of a text like ``KEY1,KEY2:read,KEY3:target+export``, or None if there are none.

        A key without a scope may do everything. Raises :class:`InputError`, which does not show
        the key, if one cannot be meant.
        """
        digests: dict[str, frozenset[Scope]] = {}
        for place, word in enumerate(filter(None, map(str.strip, (text or "").split(","))), 1):
            key, colon, given = word.partition(":")
            name = f"{KEYS_VARIABLE}: key {place}"
            scopes = frozenset(scope for scope in SCOPES if scope in given.split("+"))
            if not key or (colon and len(scopes) != len(given.split("+"))):
                raise InputError(
                    f"{name}: expected KEY, or KEY: and scopes of {', '.join(SCOPES)} with + "
                    f"between them, such as KEY:target+export"
                )
            if not (key.isascii() and key.isprintable() and " " not in key):
                raise InputError(f"{name}: expected printable ASCII without blanks")
            if digest(key) in digests:
                raise InputError(f"{name} comes twice; leave one of them")
            digests[digest(key)] = scopes if colon else frozenset({"admin"})
        return cls(digests) if digests else None

    def principals(self) -> dict[str, Principal]:
        """Digest → principal, named ``key-`` and eight digits of the digest."""
        return {each: Principal(f"key-{each[:8]}", s) for each, s in self.digests.items()}


def digest(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def principal_of(key: str, app_state: Any) -> Principal | None:
    """Whom a key stands for, or None if it is unknown, expired or revoked.

    ``app_state`` is that of the application (``request.app.state``). One digest and one lookup in
    memory; every few seconds the lookup is refreshed from the database first.
    """
    ring: KeyRing | None = app_state.ring
    return ANYBODY if ring is None else ring.find(key)


async def principal(request: Request) -> Principal:
    """The principal of a request: a dependency of every route that needs a key."""
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known  # of the route, or of the console's gate
    credentials = await bearer(request)
    return await authenticated(request, None if credentials is None else credentials.credentials)


async def authenticated(request: Request, key: str | None) -> Principal:
    """Whom a key stands for, its request counted. Raises 401 and 429."""
    ring: KeyRing | None = request.app.state.ring
    if ring is None:
        return ANYBODY  # started with --insecure
    if key is None:
        raise unauthorized("No API key came. Send it as `Authorization: Bearer KEY`.")
    if ring.due():  # not on the event loop: a database may be slow
        await run_in_threadpool(ring.refresh)
    found = principal_of(key, request.app.state)
    if found is None:
        raise unauthorized("The API key is unknown, expired or revoked.")
    await admit(request, found)
    return found


async def admit(request: Request, who: Principal) -> None:
    """Count a request of ``who``; raises 429 if it is one too many."""
    rates: Rates = request.app.state.rates
    await rates.admit(who)


Who = Annotated[Principal, Depends(principal)]


def needs(*scopes: Scope) -> Callable[[Principal], Any]:
    """A dependency that refuses principals without any of these scopes."""

    async def allowed(who: Who) -> Principal:
        _check(who, scopes)
        return who

    return allowed


def guarded(*scopes: Scope, tag: str | None = None) -> APIRouter:
    """Routes under ``/v1`` for principals with any of these scopes; without scopes, for any key.

    They ask for the key before they read the body, which FastAPI's dependencies do afterwards.
    """

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            plain = super().get_route_handler()

            async def handler(request: Request) -> Response:
                who = request.state.principal = await principal(request)
                if scopes:
                    _check(who, scopes)
                return await plain(request)

            return handler

    return APIRouter(
        prefix="/v1", route_class=Guarded, tags=[tag] if tag else None,
        dependencies=[Depends(bearer)],  # only so that OpenAPI names it
    )  # fmt: skip


def _check(who: Principal, scopes: tuple[Scope, ...]) -> None:
    if not who.may(*scopes):
        has = ", ".join(scope for scope in SCOPES if scope in who.scopes) or "nothing"
        wanted = " or ".join(f"`{scope}`" for scope in scopes)
        raise HTTPException(403, f"This API key may {has}; this needs the scope {wanted}.")


def unauthorized(detail: str) -> HTTPException:
    """401, with the scheme that is asked for."""
    return HTTPException(401, detail, headers={"WWW-Authenticate": "Bearer"})
