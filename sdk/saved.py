"""Wire models of saved audiences: a plan with a name, its runs, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from sdk.fields import NO_NUL, UtcTime, WireAnswer, WireRequest, once_each
from sdk.reaching import LookalikeRequest
from sdk.selection import AudienceId, TargetMeta, TargetRequest

Part = Literal["all", "target", "holdout"]
"""``target`` is everybody but the hold-out."""
ExportFormat = Literal["parquet", "csv", "iab"]


class SaveAudience(WireRequest):
    """Run a plan on the live snapshot, and keep it with its members under a name."""

    name: str = Field(
        min_length=1, max_length=200, pattern=NO_NUL, description="What people call it."
    )
    target: TargetRequest | None = Field(
        default=None, description="The plan: what `POST /v1/target` takes."
    )
    lookalike: LookalikeRequest | None = Field(
        default=None, description="Or: what `POST /v1/lookalike` takes."
    )
    holdout: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of the members who are held out of every export, for an experiment.",
    )
    holdout_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=NO_NUL,
        description="Audiences with one key hold out the same users; by default each its own.",
    )

    @model_validator(mode="after")
    def _one_plan(self) -> SaveAudience:
        if (self.target is None) == (self.lookalike is None):
            raise ValueError("expected exactly one of target and lookalike")
        return self


class AudienceRun(TargetMeta):
    """One run of a saved audience on one snapshot."""

    run: int = Field(description="Number of the run; it grows.")
    size: int = Field(ge=0, description="How many members it found.")
    created_at: UtcTime = Field(description="When it ran.")


class SavedAudience(WireAnswer):
    """A saved audience and its latest run."""

    id: str = Field(description="Its id.")
    name: str = Field(description="What people call it.")
    owner: str = Field(description="Who saved it.")
    target: dict[str, Any] = Field(
        description="Its plan, as `POST /v1/target` takes it; with `seeds`, `POST /v1/lookalike`."
    )
    words: str | None = Field(default=None, description="Its rules in words; null without rules.")
    holdout: float = Field(description="Share that is held out.")
    holdout_key: str = Field(description="What the hold-out is drawn by.")
    created_at: UtcTime = Field(description="When it was saved.")
    num_runs: int = Field(ge=1, description="How often it has been run.")
    latest: AudienceRun = Field(description="Its latest run.")
    notes: list[str] = Field(
        default_factory=list, description="What the caller should know, such as duplicates."
    )


class AudiencePage(WireAnswer):
    """Saved audiences, newest first."""

    audiences: list[SavedAudience] = Field(description="One page of them.")
    next: str | None = Field(
        default=None, description="Give it as `after` for the next page; null on the last."
    )


class RerunAudience(WireRequest):
    """Run a saved audience again."""

    snapshot: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="On which snapshot; the live one if left out.",
    )


class AudienceChange(WireAnswer):
    """What a new run changed against the one before."""

    audience: SavedAudience = Field(description="The audience with its new run.")
    before: AudienceRun = Field(description="The run before.")
    entered: int = Field(ge=0, description="Members who were not in before.")
    left: int = Field(ge=0, description="Members who are not in any more.")
    stayed: int = Field(ge=0, description="Members of both.")
    jaccard: float = Field(ge=0, le=1, description="`stayed` as a share of all in either.")
    entered_ids: list[str] = Field(description="Up to 1,000 who entered, best first.")
    left_ids: list[str] = Field(description="Up to 1,000 who left, best first.")
    warnings: list[str] = Field(description="What changed by much.")


class OverlapRequest(WireRequest):
    """Compare the members of saved audiences."""

    ids: Annotated[list[AudienceId], AfterValidator(once_each)] = Field(
        min_length=2, max_length=50, description="The audiences."
    )


class Overlap(WireAnswer):
    """Members that audiences share, pair by pair; rows and columns in the order of ``ids``."""

    ids: list[str] = Field(description="The audiences.")
    names: list[str] = Field(description="What people call them.")
    sizes: list[int] = Field(description="How many members each has.")
    shared: list[list[int]] = Field(description="How many members two of them share.")
    jaccard: list[list[float]] = Field(description="The same as a share of all in either.")


class SendAudience(WireRequest):
    """Send the members to a webhook, signed."""

    url: str = Field(min_length=8, max_length=2_000, description="An https address.")
    part: Part = Field(default="target", description="Who is sent; the hold-out is left out.")


class Delivery(WireAnswer):
    """What a webhook received."""

    audience: str = Field(description="The audience.")
    users: int = Field(ge=0, description="How many users were sent.")
    requests: int = Field(ge=0, description="In how many requests.")
    attempts: int = Field(ge=0, description="How many it took, failures included.")


class Deleted(WireAnswer):
    """A saved audience is gone, with its members; the log of what was done with it stays."""

    id: str = Field(description="Its id.")
