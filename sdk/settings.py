"""Where the service and the cluster are, and the keys to them: arguments, else the environment.

Read when a client is built, never at import. Everything is checked here, before it reaches the HTTP
library, whose own errors would quote an illegal header or a password in an address.
"""

from __future__ import annotations

import math
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Self

import httpx

from sdk.errors import UsageError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_RAY: Final = "http://127.0.0.1:8265"
DEFAULT_TIMEOUT: Final = 60.0

_CONNECT_SECONDS: Final = 5.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Settings:
    """Where the service is and how to talk to it; the key stays out of every ``repr``."""

    url: str
    api_key: str | None = field(repr=False)
    timeout: float

    @classmethod
    def resolve(
        cls,
        url: str | None = None,
        api_key: str | None = None,
        timeout: float | None = None,
        *,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Settings from arguments, else from the environment; raises UsageError."""
        env = os.environ if environ is None else environ
        return cls(
            url=check_url(url or env.get("OPENFOUND_URL") or DEFAULT_URL, "url (OPENFOUND_URL)"),
            api_key=check_key(
                api_key or env.get("OPENFOUND_API_KEY"), "api_key (OPENFOUND_API_KEY)"
            ),
            timeout=check_timeout(DEFAULT_TIMEOUT if timeout is None else timeout),
        )


def check_url(url: str, name: str) -> str:
    """The address without a trailing slash, or a UsageError that calls it ``name``."""
    remedy = f"Write it like {DEFAULT_URL}."
    try:
        parsed = httpx.URL(url.strip())
    except (httpx.InvalidURL, TypeError, AttributeError):
        raise UsageError(f"{name}: not an address.", remedy=remedy) from None
    if parsed.userinfo:
        # Not shown: it holds a password, and would end up in every error message.
        raise UsageError(
            f"{name}: must not carry a user or password.", remedy="Leave out what is before '@'."
        )
    plain = parsed.scheme in {"http", "https"} and parsed.host and not parsed.query
    if not plain or any(sign.isspace() for sign in url.strip()):
        raise UsageError(f"{name}: expected http://HOST:PORT, got {url!r}.", remedy=remedy)
    return str(parsed.copy_with(fragment=None)).rstrip("/")


def check_key(key: str | None, name: str) -> str | None:
    """The key without surrounding blanks; a UsageError, which does not show it, if it is none."""
    stripped = (key or "").strip()
    if not stripped:
        return None
    # Checked here, because the HTTP library would quote an illegal header in its error.
    if not (stripped.isascii() and stripped.isprintable() and " " not in stripped):
        raise UsageError(
            f"{name}: has blanks or characters beyond ASCII.", remedy="Copy the key once more."
        )
    return stripped


def check_timeout(seconds: float) -> float:
    """The timeout, or a UsageError."""
    if not isinstance(seconds, int | float) or not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(
            f"timeout: expected seconds above 0, got {seconds!r}.", remedy="Give e.g. 60."
        )
    return float(seconds)


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address; none for this very machine."""
    parsed = httpx.URL(url)
    if parsed.host in _LOOPBACK or urllib.request.proxy_bypass(parsed.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parsed.scheme) or proxies.get("all")


def http_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that ``httpx.Client`` and ``httpx.AsyncClient`` share."""
    headers = {"User-Agent": f"openfound-sdk/{installed_version()}"}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    connect = min(_CONNECT_SECONDS, settings.timeout)
    timeout = httpx.Timeout(settings.timeout, connect=connect)
    return {"base_url": settings.url, "headers": headers, "timeout": timeout}


def installed_version() -> str:
    """Version of the distribution; "0" when run from a source tree that is not installed."""
    try:
        return version("openfound")
    except PackageNotFoundError:
        return "0"


def ray_address(address: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Address of a Ray cluster's dashboard, from the argument or Ray's own environment."""
    env = os.environ if environ is None else environ
    candidates = (
        ("address", address),
        ("RAY_API_SERVER_ADDRESS", env.get("RAY_API_SERVER_ADDRESS")),
        ("RAY_ADDRESS", env.get("RAY_ADDRESS")),
    )
    name, value = next(((n, v) for n, v in candidates if v), ("address", DEFAULT_RAY))
    if not value.strip().lower().startswith(("http://", "https://")):
        # Ray itself also takes `auto`, `HOST:6379` and `ray://…`: none of these speaks HTTP.
        raise UsageError(
            f"{name}: expected the dashboard's http://HOST:8265, got {value!r}.",
            remedy="Give --address, or set RAY_API_SERVER_ADDRESS, which goes first.",
        )
    return check_url(value, name)


def ray_token(address: str, environ: Mapping[str, str] | None = None) -> str | None:
    """The cluster's token, or None if there is none or ``RAY_AUTH_MODE`` says it is off.

    As for Ray's own client: ``RAY_AUTH_TOKEN``, else the file ``RAY_AUTH_TOKEN_PATH``. The token in
    the home directory goes to this machine only, because it is as good as root on its cluster.
    """
    env = os.environ if environ is None else environ
    if env.get("RAY_AUTH_MODE") == "disabled":
        return None
    if env.get("RAY_AUTH_TOKEN"):
        return check_key(env["RAY_AUTH_TOKEN"], "RAY_AUTH_TOKEN")
    if env.get("RAY_AUTH_TOKEN_PATH"):
        return _token_file(Path(env["RAY_AUTH_TOKEN_PATH"]).expanduser())
    own = Path(env.get("HOME") or Path.home()) / ".ray" / "auth_token"
    if httpx.URL(address).host in _LOOPBACK and own.is_file():
        return _token_file(own)
    return None


def _token_file(path: Path) -> str | None:
    try:
        return check_key(path.read_text(), f"token in {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"RAY_AUTH_TOKEN_PATH: {path} cannot be read ({type(error).__name__}).",
            remedy="Name a readable file, or set RAY_AUTH_TOKEN.",
        ) from None
