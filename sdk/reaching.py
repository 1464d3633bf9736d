"""Wire models of two more questions: how far a demand reaches, and who is like these users."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from sdk.fields import (
    DEFAULT_KIND,
    MAX_USER_IDS,
    Kind,
    PromptId,
    Text,
    UserId,
    UtcTime,
    WireAnswer,
    once_each,
)
from sdk.selection import Cut, Filters


class LookalikeRequest(Filters, Cut):
    """Pick the users who are most like the seeds."""

    seeds: Annotated[list[UserId], AfterValidator(once_each)] = Field(
        min_length=1,
        max_length=MAX_USER_IDS,
        description="Users to be alike; with fewer than ten the sentence stands in for them.",
        examples=[["12", "99", "7"]],
    )
    text: Text | None = Field(
        default=None,
        description="A sentence that stands in if there are too few seeds.",
    )
    with_seeds: bool = Field(
        default=False, strict=True, description="Let the seeds themselves be among the users."
    )
    kind: Kind = Field(default=DEFAULT_KIND, description="Which embedding to compare.")


class ReachRequest(Filters):
    """Ask how many users a demand fits how well, before picking any."""

    prompt: PromptId | None = Field(default=None, description="Id of a tuned prompt.")
    text: Text | None = Field(
        default=None, validate_default=True, description="One sentence about the users wanted."
    )
    kind: Kind = Field(default=DEFAULT_KIND, description="Which embedding to search.")
    rewrite: bool = Field(
        default=True, strict=True, description="Let the service read the sentence in its own words."
    )
    bins: int = Field(default=40, ge=2, le=500, strict=True, description="Bins of the histogram.")

    @field_validator("text")
    @classmethod
    def _something_asked(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None and info.data.get("prompt", "") is None:
            raise ValueError("Field required: a sentence, or the id of a tuned prompt")
        return text


class ReachPoint(WireAnswer):
    """The best ``size`` users."""

    size: int = Field(ge=1, description="How many.")
    min_score: float = Field(description="Score of the last of them.")
    share: float = Field(description="Their share of the population.")
    expected_buyers: float | None = Field(
        default=None, description="How many of them are expected to do what is asked."
    )
    low: float | None = Field(default=None, description="Lower end of its 80 % interval.")
    high: float | None = Field(default=None, description="Upper end of its 80 % interval.")
    precision: float | None = Field(default=None, description="The same as a share of them.")
    lift: float | None = Field(default=None, description="Precision over the population's rate.")


class Reach(WireAnswer):
    """Reach against quality: scores of the eligible, and what each size would bring.

    Everything about buyers is null where the snapshot carries no calibration, or it abstains.
    """

    snapshot: str = Field(description="Id of the snapshot that answered.")
    space: str = Field(description="Embedding space; scores of two spaces cannot be compared.")
    as_of: UtcTime = Field(description="Only what was known strictly before this time was used.")
    horizon_days: int = Field(ge=1, description="How many days the sentence speaks about.")
    population: int = Field(ge=0, description="All users.")
    eligible: int = Field(ge=0, description="How many of them the filters leave.")
    edges: list[float] = Field(description="Edges of the histogram's bins, ascending.")
    counts: list[int] = Field(description="Eligible users in each bin.")
    points: list[ReachPoint] = Field(description="Sizes from 1 to all eligible.")
    base_rate: float | None = Field(
        default=None, description="Share of the population expected to do what is asked."
    )
    useful_size: int | None = Field(
        default=None,
        description="Eligible users more likely than the population's average: beyond this size, "
        "a user added is no better than one drawn at random.",
    )
    notes: list[str] = Field(default_factory=list, description="What the caller should know.")
