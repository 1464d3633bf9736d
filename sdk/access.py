"""Wire models of access: API keys, their scopes, and the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, Field, StringConstraints

from sdk.fields import UtcTime, WireAnswer, WireRequest, once_each

Scope = Literal["read", "target", "export", "admin"]
"""``read`` asks and changes nothing; ``target`` picks and keeps audiences; ``export`` takes them
out; ``admin`` may do everything."""
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
MAX_OVERLAP: Final = 30 * 24 * 3600
"""Longest time, in seconds, for which the key before a rotation stays valid."""

Name = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$"
    ),
]
Rate = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,6}/(second|minute|hour|day)$")]


class CreateKey(WireRequest):
    """Make an API key."""

    name: Name = Field(
        description="What it is for; it stands in the audit log.", examples=["crm-export"]
    )
    scopes: Annotated[list[Scope], AfterValidator(once_each)] = Field(
        min_length=1, max_length=len(SCOPES), description="What it may do."
    )
    owner: Name | None = Field(
        default=None, description="Who answers for it; whoever makes it, if left out."
    )
    expires_at: UtcTime | None = Field(
        default=None, description="Until when it is valid; for ever if left out."
    )
    rate: Rate | None = Field(
        default=None,
        description="Its own rate limit instead of the service's, such as `600/minute`.",
    )


class RotateKey(WireRequest):
    """Replace the secret of a key; everything else about it stays."""

    overlap_seconds: int = Field(
        default=24 * 3600,
        ge=0,
        le=MAX_OVERLAP,
        description="For how long the secret before stays valid beside the new one.",
    )


class KeyInfo(WireAnswer):
    """An API key, without the key itself."""

    id: str = Field(description="Its id.")
    name: str = Field(description="What it is for.")
    owner: str = Field(description="Who answers for it.")
    scopes: list[Scope] = Field(description="What it may do.")
    rate: str | None = Field(default=None, description="Its own rate limit; null: the service's.")
    created_at: UtcTime = Field(description="When it was made.")
    expires_at: UtcTime | None = Field(default=None, description="Until when it is valid.")
    rotated_at: UtcTime | None = Field(default=None, description="When it was last rotated.")
    overlap_until: UtcTime | None = Field(
        default=None, description="Until when the secret before is valid too."
    )
    last_used_at: UtcTime | None = Field(
        default=None, description="When it was last used, to a minute; null if never."
    )
    revoked_at: UtcTime | None = Field(default=None, description="When it was revoked.")


class NewKey(KeyInfo):
    """A key that was just made or rotated. The key itself is never shown again."""

    key: str = Field(description="The key; only its SHA-256 digest is kept.")


class KeyList(WireAnswer):
    """All keys of the database, newest first; those of the environment are not among them."""

    keys: list[KeyInfo] = Field(description="The keys, revoked ones included.")


class AuditLine(WireAnswer):
    """Who did what, when."""

    id: int = Field(description="Number of the line; it grows.")
    at: UtcTime = Field(description="When.")
    who: str = Field(description="Name of the key, or of whoever signed in.")
    action: str = Field(description="What was done: target, export, activate, key.create, ...")
    audience: str | None = Field(default=None, description="The saved audience it was done with.")
    detail: dict[str, Any] = Field(description="What else there is to know.")


class AuditPage(WireAnswer):
    """Lines of the audit log, newest first."""

    lines: list[AuditLine] = Field(description="One page of them.")
    next: int | None = Field(
        default=None, description="Give it as `before` for the next page; null on the last."
    )
