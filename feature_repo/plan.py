"""What a demand is turned into: hard rules, and the soft part that the encoder reads.

    women over 45 likely to buy cat food
    └── Plan(text="likely to buy cat food", rules=All((Profile("profile_gender", "is", "F"), …)))

A plan is shown before it acts, can be edited, and travels as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from feature_repo.nearest import shown, unknown
from feature_repo.rules import Rule, RuleError, check_size, dump, parse

MAX_TEXT: Final = 2_000
MAX_HORIZON_DAYS: Final = 366


@dataclass(frozen=True)
class Plan:
    """What a demand means: whom to leave out by ``rules``, whom to prefer by ``text``.

    Attributes:
        demand: the sentence as it was given.
        text: its soft part, which the encoder reads; "" if there is none.
        rules: its hard part; None if there is none.
        horizon_days: how far ahead it speaks; None if it does not say.
        not_understood: pieces of the sentence that went into neither half.
        notes: what was assumed, in sentences.
    """

    demand: str
    text: str = ""
    rules: Rule | None = None
    horizon_days: int | None = None
    not_understood: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("demand", "text"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > MAX_TEXT:
                raise RuleError(f"plan.{name}: expected at most {MAX_TEXT} characters of text, "
                                f"got {shown(value)}")  # fmt: skip
        days = self.horizon_days
        whole = isinstance(days, int) and not isinstance(days, bool)
        if days is not None and not (whole and 1 <= days <= MAX_HORIZON_DAYS):
            raise RuleError(
                f"plan.horizon_days: expected 1 to {MAX_HORIZON_DAYS}, got {shown(days)}"
            )
        if self.rules is not None:
            check_size(self.rules, path="plan.rules")


def dump_plan(plan: Plan) -> dict[str, Any]:
    """The JSON document of a plan; what :func:`parse_plan` reads."""
    return {
        "demand": plan.demand,
        "text": plan.text,
        "rules": None if plan.rules is None else dump(plan.rules),
        "horizon_days": plan.horizon_days,
        "not_understood": list(plan.not_understood),
        "notes": list(plan.notes),
    }


def parse_plan(document: Any) -> Plan:
    """The plan of a JSON document. Raises RuleError naming the place and the remedy."""
    if not isinstance(document, Mapping):
        raise RuleError(f"plan: expected an object, got {shown(document)}")
    known = [field.name for field in fields(Plan)]
    for key in document:
        if key not in known:
            raise RuleError(unknown("plan", "field", key, known))
    given = dict(document)
    if given.get("rules") is not None:
        given["rules"] = parse(given["rules"], path="plan.rules")
    for name in ("not_understood", "notes"):
        given[name] = _texts(given.get(name, ()), name)
    return Plan(**{"demand": "", **given})


def _texts(given: Any, name: str) -> tuple[str, ...]:
    fits = isinstance(given, list | tuple) and all(isinstance(one, str) for one in given)
    if not fits:
        raise RuleError(f"plan.{name}: expected a list of texts, got {shown(given)}")
    return tuple(given)
