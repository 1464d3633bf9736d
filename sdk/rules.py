"""Hard rules on the wire: who may be in an audience at all.

>>> from sdk.rules import AllRules, BehaviourRule, NotRule, ProfileRule
>>> rule = AllRules(rules=[
...     ProfileRule(column="profile_age", op="at_least", value=45),
...     NotRule(rule=BehaviourRule(verb="bought", subject="CAT FOOD", days=30)),
... ])
>>> rule.model_dump(exclude_none=True)["rules"][1]["rule"]["days"]
30

A plain ``dict`` of the same shape does as well. Days are counted back from the snapshot's
``as_of``. Which columns and subjects there are, the service knows: an unknown one is answered with
the nearest that it has.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictFloat, StrictInt, StrictStr, StringConstraints

from sdk.fields import MAX_USER_IDS, UserId, WireRequest

_MAX_NAME = 2_000  # as long as a text of the service's tables
Name = Annotated[str, StringConstraints(min_length=1, max_length=_MAX_NAME)]
Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]
Bound = Annotated[StrictInt, Field(ge=0)] | Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)]
Value = Annotated[StrictStr, StringConstraints(min_length=1, max_length=_MAX_NAME)] | Number
Verb = Literal["bought", "clicked", "browsed", "searched", "paid", "received", "redeemed"]


class ProfileRule(WireRequest):
    """What is known of the user; of an unknown value every op is false."""

    type: Literal["profile"] = "profile"
    column: Name = Field(description="A registered profile column.", examples=["profile_age"])
    op: Literal["is", "is_not", "in", "at_least", "at_most", "between", "known"] = Field(
        description="How the value is compared; `between` includes both ends."
    )
    value: Value | Annotated[list[Value], Field(min_length=1, max_length=1_000)] | None = Field(
        default=None,
        description="Text or a number; several for `in`, two numbers for `between`, none for "
        "`known`.",
    )


class BehaviourRule(WireRequest):
    """What the user did, how often or for how much; without bounds, at least once."""

    type: Literal["behaviour"] = "behaviour"
    verb: Verb = Field(description="What was done.")
    subject: Name | None = Field(
        default=None,
        description="A name of any level of the catalogue, a search text, channel or campaign; "
        "anything if left out.",
        examples=["CAT FOOD"],
    )
    days: int | None = Field(
        default=None,
        ge=1,
        le=3_650,
        strict=True,
        description="Days back from `as_of`; ever recorded if left out.",
    )
    measure: Literal["count", "amount"] = Field(
        default="count", description="Baskets (or events without one), or money."
    )
    at_least: Bound | None = Field(default=None, description="Lower bound, included.")
    at_most: Bound | None = Field(default=None, description="Upper bound, included.")


class SegmentRule(WireRequest):
    """Member of a registered segment. Reserved: no snapshot carries segments yet."""

    type: Literal["segment"] = "segment"
    name: Name = Field(description="The segment.")


class UsersRule(WireRequest):
    """One of the users named."""

    type: Literal["users"] = "users"
    ids: list[UserId] = Field(min_length=1, max_length=MAX_USER_IDS, description="The users.")


class AudienceRule(WireRequest):
    """Member of a saved audience, as it was last run."""

    type: Literal["audience"] = "audience"
    id: Name = Field(description="Id of the saved audience.")


class AllRules(WireRequest):
    """Every one of the rules holds."""

    type: Literal["all"] = "all"
    rules: list[Rule] = Field(min_length=1, max_length=200, description="The rules.")


class AnyRule(WireRequest):
    """At least one of the rules holds."""

    type: Literal["any"] = "any"
    rules: list[Rule] = Field(min_length=1, max_length=200, description="The rules.")


class NotRule(WireRequest):
    """The rule does not hold."""

    type: Literal["not"] = "not"
    rule: Rule = Field(description="The rule.")


Rule = Annotated[
    AllRules
    | AnyRule
    | NotRule
    | ProfileRule
    | BehaviourRule
    | SegmentRule
    | UsersRule
    | AudienceRule,
    Field(discriminator="type"),
]
"""Any rule; at most 8 levels deep and 200 in all."""

for _model in (AllRules, AnyRule, NotRule):
    _model.model_rebuild()
