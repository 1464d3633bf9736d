"""Who is signed in: a session holds the digest of an API key, never the key, and a CSRF token.

The digest is looked up at every request, so a session ends when its key is revoked. The cookie is
signed, HttpOnly and SameSite=Strict; it says nothing that its owner does not know.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated, Any, Final

from fastapi import Depends, Form, HTTPException, Request

from serving.auth import ANYBODY, Principal, digest

_KEY: Final = "key"
_TOKEN: Final = "token"
Session = dict[str, Any]


def sign_in(request: Request, key: str) -> bool:
    """Begin a session for a key; False if the service does not know it."""
    request.session.clear()
    given = digest(key)
    if principal_in({_KEY: given}, request.app.state) is None:
        return False
    request.session[_KEY] = given
    return True


def principal_in(session: Session, app_state: Any) -> Principal | None:
    """Whom a session stands for, or None if nobody is signed in (any more)."""
    if app_state.ring is None:  # started with --insecure
        return ANYBODY
    found: Principal | None = app_state.ring.of_digest(str(session.get(_KEY)))
    return found


def token(request: Request) -> str:
    """The CSRF token of a session, made at its first page."""
    return str(request.session.setdefault(_TOKEN, secrets.token_urlsafe(24)))


def token_fits(session: Session, given: str | None) -> bool:
    """Whether a request carries its session's token."""
    expected = session.get(_TOKEN)
    return bool(expected and given and hmac.compare_digest(expected.encode(), given.encode()))


def checked_form(request: Request, token: Annotated[str, Form(max_length=200)] = "") -> None:
    """Refuse a form without its session's token: a dependency of what forms are sent to."""
    if not token_fits(request.session, token):
        raise HTTPException(403, "This form is out of date. Go back, reload the page, try again.")


CheckedForm = Depends(checked_form)
