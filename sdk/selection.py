"""Wire models of picking users: what is asked, who may be among them, and where the cut is.

One request has three parts. *Asked*: a sentence or a tuned prompt. *Filters*: hard rules, and users
who must or must not be in. *Cut*: exactly one of ``size``, ``min_score``, ``min_probability``,
``share`` and ``expected_buyers``. Filters act before the cut, so an audience is as large as asked
for as long as there are eligible users.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from sdk.fields import (
    DEFAULT_KIND,
    DEFAULT_SIZE,
    MAX_USER_IDS,
    Kind,
    PromptId,
    Text,
    UserId,
    UtcTime,
    WireAnswer,
    WireRequest,
    once_each,
)
from sdk.rules import Rule

UserIds = Annotated[list[UserId], AfterValidator(once_each), Field(max_length=MAX_USER_IDS)]
AudienceId = Annotated[str, Field(min_length=1, max_length=128)]
AudienceIds = Annotated[list[AudienceId], AfterValidator(once_each), Field(max_length=100)]


class FilterChoosing(TypedDict, total=False):
    """Filters as keyword arguments: fields of :class:`Filters`."""

    rules: Rule | Mapping[str, Any] | None
    include: Iterable[str] | None
    exclude: Iterable[str] | None
    exclude_audiences: Iterable[str] | None


class Choosing(FilterChoosing, total=False):
    """Filters and cut as keyword arguments: fields of :class:`Filters` and :class:`Cut`."""

    size: int | None
    min_score: float | None
    min_probability: float | None
    share: float | None
    expected_buyers: float | None


class Filters(WireRequest):
    """Who may be among the users, before any cut."""

    rules: Rule | None = Field(
        default=None,
        description="Hard rules on profile, behaviour and audiences, as a tree.",
        examples=[{"type": "not", "rule": {"type": "behaviour", "verb": "bought", "days": 30}}],
    )
    include: UserIds | None = Field(
        default=None,
        description="Users who are in whatever their score and the rules; they count in `size`.",
    )
    exclude: UserIds | None = Field(
        default=None, description="Users who are out, whatever their score."
    )
    exclude_audiences: AudienceIds | None = Field(
        default=None, description="Saved audiences whose members are out."
    )

    @model_validator(mode="after")
    def _no_user_in_and_out(self) -> Filters:
        if both := sorted(set(self.include or ()) & set(self.exclude or ())):
            raise ValueError(f"users are both included and excluded: {', '.join(both[:5])}")
        return self


class Cut(WireRequest):
    """How many are picked: exactly one way of saying so, or 100 users."""

    min_score: float | None = Field(
        default=None, allow_inf_nan=False, description="Everybody with at least this score."
    )
    min_probability: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Everybody whose calibrated probability is at least this.",
    )
    share: float | None = Field(
        default=None, gt=0, le=1, description="The best part of the population, rounded up."
    )
    expected_buyers: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="The smallest audience in which this many are expected to do what is asked.",
    )
    # After the others, so that its default can depend on them.
    size: int | None = Field(
        default=None,
        validate_default=True,
        ge=1,
        strict=True,
        description="How many users to return, at most; above the population it means everybody. "
        f"{DEFAULT_SIZE} unless another way is chosen.",
        json_schema_extra={"default": DEFAULT_SIZE},
    )

    @field_validator("size", mode="after")
    @classmethod
    def _exactly_one(cls, size: int | None, info: ValidationInfo) -> int | None:
        others = ("min_score", "min_probability", "share", "expected_buyers")
        # An invalid one is absent from `data`: it is told alone.
        named = [name for name in others if info.data.get(name, "invalid") is not None]
        if len(named) + (size is not None) > 1:
            given = ", ".join([*named, *(["size"] if size is not None else [])])
            raise ValueError(f"expected exactly one way to choose, got {given}")
        return size if named or size is not None else DEFAULT_SIZE


class TargetRequest(Filters, Cut):
    """Pick the users whom one sentence, or a tuned prompt, describes best."""

    prompt: PromptId | None = Field(
        default=None,
        description="Id of a tuned prompt, instead of a sentence; `text` may then repeat its own.",
    )
    text: Text | None = Field(
        default=None,
        validate_default=True,
        description="One sentence about the users wanted, in plain words. It may be left out if "
        "there are `rules`: then nobody is preferred.",
        examples=["households that will buy diapers next month"],
    )
    exact: bool = Field(
        default=False,
        strict=True,
        description="Score every user by the exact scan instead of asking the vector index.",
    )
    kind: Kind = Field(
        default=DEFAULT_KIND,
        description="Which embedding to search; it must be one that sentences are aligned with.",
    )
    rewrite: bool = Field(
        default=True,
        strict=True,
        description="Let the service read the sentence in its own words, if it has a rewriter; "
        "a note says what it was read as. A tuned prompt is never rewritten.",
    )
    split: bool = Field(
        default=True,
        strict=True,
        description="Read hard rules out of the sentence (`women over 45`, `not bought in the last "
        "30 days`), if no `rules` are given; notes say which.",
    )

    @field_validator("text")
    @classmethod
    def _something_asked(cls, text: str | None, info: ValidationInfo) -> str | None:
        # A wrong prompt, or wrong rules, are told alone.
        asked = info.data.get("prompt", ""), info.data.get("rules", "")
        if text is None and asked == (None, None):
            raise ValueError("Field required: a sentence, or the id of a tuned prompt")
        return text


class ScoredUser(WireAnswer):
    """One member of an audience."""

    user_id: UserId = Field(description="The user.")
    score: float = Field(
        allow_inf_nan=False, description="How well the sentence fits; higher is better."
    )


class TargetMeta(WireAnswer):
    """Everything an audience says about itself, without its members."""

    snapshot: str = Field(description="Id of the snapshot that answered.")
    space: str = Field(description="Embedding space; scores of two spaces cannot be compared.")
    as_of: UtcTime = Field(description="Only what was known strictly before this time was used.")
    horizon_days: int = Field(
        ge=1, description="How many days after `as_of` the sentence speaks about."
    )
    engine: Literal["milvus", "scan"] = Field(
        description="Who answered: the vector index, or the exact scan of all users."
    )
    population: int = Field(ge=0, description="How many users there were to choose from.")
    eligible: int | None = Field(
        default=None, ge=0, description="How many of them the filters left; null without filters."
    )
    expected_buyers: float | None = Field(
        default=None,
        ge=0,
        description="How many members are expected to do what is asked; null without calibration.",
    )
    expected_low: float | None = Field(
        default=None, ge=0, description="Lower end of its 80 % interval."
    )
    expected_high: float | None = Field(
        default=None, ge=0, description="Upper end of its 80 % interval."
    )
    notes: list[str] = Field(
        default_factory=list, description="What the caller should know, in sentences."
    )


class TargetResponse(TargetMeta):
    """An audience, best users first, equal scores by user id."""

    users: list[ScoredUser] = Field(description="The members, ordered by score, then user id.")
