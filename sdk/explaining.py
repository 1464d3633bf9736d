"""Wire models of "why": what carried a user's score, and what tells an audience from everybody."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from sdk.fields import (
    DEFAULT_KIND,
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
from sdk.selection import AudienceId, TargetRequest

MAX_EXPLAINED = 20
"""Most users explained by one request: each takes about a second."""


class ExplainRequest(WireRequest):
    """Ask what carried the scores of named users for a demand."""

    user_ids: Annotated[list[UserId], AfterValidator(once_each)] = Field(
        min_length=1,
        max_length=MAX_EXPLAINED,
        description="Whose scores; an id named twice is answered once.",
        examples=[["12", "99"]],
    )
    prompt: PromptId | None = Field(default=None, description="Id of a tuned prompt.")
    audience: AudienceId | None = Field(
        default=None, description="Id of a saved audience, whose demand it is then."
    )
    rules: Rule | None = Field(
        default=None, description="Hard rules; the answer says who meets them."
    )
    text: Text | None = Field(
        default=None,
        validate_default=True,
        description="The sentence, as `POST /v1/target` takes it.",
        examples=["households that will buy diapers next month"],
    )
    top: int = Field(
        default=5, ge=1, le=20, strict=True,
        description="How many contributions for and against, events and sentences are told.",
    )  # fmt: skip
    kind: Kind = Field(default=DEFAULT_KIND, description="Which embedding the score is of.")
    rewrite: bool = Field(
        default=True, strict=True, description="Let the service read the sentence in its own words."
    )
    split: bool = Field(
        default=True, strict=True, description="Read hard rules out of the sentence first."
    )

    @field_validator("text")
    @classmethod
    def _one_demand(cls, text: str | None, info: ValidationInfo) -> str | None:
        asked = info.data.get("prompt", ""), info.data.get("audience", "")
        if text is None and asked == (None, None):
            raise ValueError("Field required: a sentence, a prompt, or a saved audience")
        if info.data.get("audience") is not None and (text, asked[0]) != (None, None):
            raise ValueError("expected either an audience or a sentence or prompt, got both")
        return text


class Contribution(WireAnswer):
    """One part of a user's past, and what the score owes to it."""

    words: str = Field(description="The part as people say it.")
    modality: str = Field(description="behaviour, tabular or search.")
    name: str = Field(description="The subject, or the profile column.")
    verb: str | None = Field(default=None, description="What was done; null for a column.")
    week_end: UtcTime | None = Field(
        default=None, description="Exclusive end of the week; of several the latest."
    )
    weeks: int = Field(ge=0, description="How many weeks it joins; 0 for a profile column.")
    contribution: float | None = Field(
        default=None, description="What the score loses without it, on average."
    )


class PastEvent(WireAnswer):
    """Something the user did."""

    words: str = Field(description="The event as people say it.")
    verb: str = Field(description="What was done.")
    subject: str = Field(description="With what.")
    week_end: UtcTime = Field(description="Exclusive end of its week.")


class FutureSentence(WireAnswer):
    """A sentence about the future, and how well it fits this user."""

    text: str = Field(description="The sentence.")
    deviations: float = Field(
        description="Standard deviations that the user's score lies above everybody's mean."
    )


class Explained(WireAnswer):
    """Why one user has the score: ``score = base + sum(contributions) + rest``, up to rounding."""

    user_id: UserId = Field(description="The user.")
    score: float = Field(description="As `POST /v1/target` ranks by.")
    base: float = Field(description="The score of the same user without any past.")
    eligible: bool | None = Field(
        default=None, description="Whether the hard rules let the user in; null without rules."
    )
    modalities: dict[str, float] = Field(description="All contributions, summed by modality.")
    contributions: list[Contribution] = Field(
        description="The largest for and against, from the most in favour on."
    )
    rest: float = Field(description="All other contributions together.")
    unexplained: float = Field(
        ge=0, description="What contributions miss of `score - base`, relative to it."
    )
    decisive: list[Contribution] = Field(
        description="The few events whose absence together moves the score most."
    )
    score_without: float = Field(description="The score if the decisive events were absent.")
    latest: list[PastEvent] = Field(description="The latest events, newest first.")
    sentences: list[FutureSentence] = Field(
        description="What the model expects of this user more than of others."
    )


class Explanations(WireAnswer):
    """Why users have their scores, encoded anew from their own weekly rows."""

    snapshot: str = Field(description="Id of the snapshot that answered.")
    space: str = Field(description="Embedding space; scores of two spaces cannot be compared.")
    as_of: UtcTime = Field(description="Only what was known strictly before this time was used.")
    horizon_days: int = Field(ge=1, description="How many days the demand speaks about.")
    weeks: int = Field(ge=1, description="How many weeks of the past the model reads.")
    tolerance: float = Field(description="`unexplained` stays below this.")
    users: list[Explained] = Field(description="In the order asked for.")
    missing: list[str] = Field(
        default_factory=list, description="Asked users whom the snapshot does not know."
    )
    notes: list[str] = Field(default_factory=list, description="What the caller should know.")


class PortraitRequest(WireRequest):
    """Ask what tells an audience from everybody: one that is picked now, or a saved one."""

    target: TargetRequest | None = Field(default=None, description="What `POST /v1/target` takes.")
    audience: AudienceId | None = Field(
        default=None, description="Id of a saved audience: its members at the latest run."
    )
    days: int = Field(
        default=84, ge=1, le=366, strict=True, description="How far back behaviour is counted."
    )
    top: int = Field(
        default=10, ge=1, le=100, strict=True, description="How many subjects are told."
    )

    @model_validator(mode="after")
    def _one_audience(self) -> PortraitRequest:
        if (self.target is None) == (self.audience is None):
            raise ValueError("expected exactly one of target and audience")
        return self


class Distinction(WireAnswer):
    """One subject that members did more often than everybody, or a share of a profile value."""

    verb: str = Field(description="What was done.")
    subject: str = Field(description="With what.")
    share: float = Field(description="Share of the audience.")
    everybody: float = Field(description="Share of all users.")
    lift: float = Field(description="The one over the other, drawn a little towards 1.")
    deviations: float = Field(description="Standard errors that the share lies above.")


class ProfileShare(WireAnswer):
    """One value, or one quarter of the range, of a profile column."""

    column: str = Field(description="The column.")
    value: str | None = Field(description="The value; a range for numbers; null if unknown.")
    share: float = Field(description="Share of the audience.")
    everybody: float = Field(description="Share of all users.")
    lift: float = Field(description="The one over the other, drawn a little towards 1.")


class Portrait(WireAnswer):
    """What tells an audience from everybody."""

    snapshot: str = Field(description="Id of the snapshot that is described.")
    as_of: UtcTime = Field(description="Only what was known strictly before this time was used.")
    size: int = Field(ge=0, description="How many members.")
    population: int = Field(ge=0, description="All users.")
    days: int = Field(description="How far back behaviour was counted.")
    behaviour: list[Distinction] = Field(
        description="Subjects that the audience did more often, the surest first."
    )
    profile: list[ProfileShare] = Field(description="Shares of profile values, by column.")
    notes: list[str] = Field(default_factory=list, description="What the caller should know.")
