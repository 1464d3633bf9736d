"""What wire models are made of: limits, checked kinds of field, and the two sorts of model.

Requests refuse unknown fields, since a misspelt option must not be dropped in silence; answers
ignore them, so that an older client can talk to a newer server.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_TEXT: Final = 2_000
"""Longest sentence, in characters, after stripping."""
MAX_USER_IDS: Final = 10_000
"""Most user ids in one request."""
MAX_USER_ID: Final = 256
"""Longest user id, in characters."""
MIN_SEEDS: Final = 3
"""Fewest positive, and fewest negative, seed users: with less a prompt would be hearsay."""
MAX_SEEDS: Final = 1_000
"""Most seed users of each sort."""
NO_NUL: Final = r"^[^\x00]*$"
"""What the service keeps as text; PostgreSQL has none with NUL."""
DEFAULT_SIZE: Final = 100
DEFAULT_KIND: Final = "fused"


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def once_each(values: list[str]) -> list[str]:
    """The values without repetitions, each at its first place."""
    return list(dict.fromkeys(values))


UtcTime = Annotated[datetime, AfterValidator(_utc)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)]
UserId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_USER_ID)]
Kind = Annotated[str, StringConstraints(min_length=1, max_length=128)]
PromptId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Seeds = Annotated[
    list[UserId], AfterValidator(once_each), Field(min_length=MIN_SEEDS, max_length=MAX_SEEDS)
]
TuneMethod = Literal["posterior", "tokens"]
"""How seed users sharpen a sentence: in closed form, or by learnt tokens before it (FOUND's)."""


class WireRequest(BaseModel):
    """A request, or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class WireAnswer(BaseModel):
    """An answer, or a part of one."""

    model_config = ConfigDict(extra="ignore", frozen=True)
