"""Wire models of a plan: one sentence as hard rules and a soft rest, to be shown and edited."""

from __future__ import annotations

from pydantic import Field

from sdk.fields import DEFAULT_KIND, Kind, Text, WireAnswer, WireRequest
from sdk.rules import Rule


class PlanRequest(WireRequest):
    """Ask how a sentence is understood, before anybody is picked."""

    text: Text = Field(
        description="One sentence about the users wanted, in plain words.",
        examples=["will buy cat food, not bought in the last 30 days"],
    )
    kind: Kind = Field(default=DEFAULT_KIND, description="Which embedding will be searched.")


class Plan(WireAnswer):
    """A sentence in two halves. Edit them and pass them on as ``text`` and ``rules``."""

    demand: str = Field(description="The sentence as it was given.")
    text: str = Field(description="Its soft part, which ranks; empty if there is none.")
    rules: Rule | None = Field(default=None, description="Its hard part; null if there is none.")
    rules_in_words: str | None = Field(default=None, description="The hard part, for people.")
    horizon_days: int | None = Field(
        default=None, ge=1, description="How far ahead it speaks; null if it does not say."
    )
    not_understood: list[str] = Field(
        default_factory=list, description="Pieces that went into neither half."
    )
    notes: list[str] = Field(default_factory=list, description="What was assumed, in sentences.")
