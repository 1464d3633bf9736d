"""A sentence as a plan: hard rules that filter, and the rest that ranks.

Reads by :mod:`encoders.demand`, over the columns, subjects and catalogue of the snapshot that will
answer. What is read is told in words, so that nobody is filtered in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from pydantic import TypeAdapter

from encoders import checkpoint
from encoders.catalogue import Catalogue
from encoders.demand import DemandParser
from encoders.demand_subjects import Subjects
from encoders.query import QueryEncoder
from feature_repo import plan as plans
from feature_repo.manifest import Manifest
from feature_repo.rule_filter import RuleFilter
from feature_repo.rule_words import words
from feature_repo.rules import dump
from feature_repo.settings import Workspace
from sdk.planning import Plan
from sdk.rules import Rule
from sdk.selection import TargetRequest

_RULE: Final[TypeAdapter[Any]] = TypeAdapter(Rule)
NO_FACTS: Final = "This snapshot carries no facts to filter by, so no rules are read."


class Reader(Protocol):
    """Reads demands; never fails."""

    def read(self, demand: str, /) -> plans.Plan: ...


def demand_reader(
    workspace: Workspace, manifest: Manifest, rules: RuleFilter, encoders: Mapping[str, Any]
) -> Reader | None:
    """The reader over one snapshot's words; None if it carries no facts to filter by."""
    encoder = encoders.get("fused")
    if manifest.facts is None or not isinstance(encoder, QueryEncoder):
        return None
    place = workspace.root / manifest.checkpoints["alignment"].path
    catalogue = checkpoint.read_catalogue(place) or Catalogue(())
    ground = Subjects(catalogue.headings, encoder.nearest)
    return DemandParser(rules.vocabulary, ground, as_of=manifest.as_of, known=encoder.words)


def plan_of(reader: Reader | None, demand: str) -> Plan:
    """The plan of a demand, as it travels."""
    if reader is None:
        return Plan(demand=demand, text=demand, notes=[NO_FACTS])
    read = reader.read(demand)
    return Plan(
        demand=read.demand,
        text=read.text,
        rules=None if read.rules is None else _RULE.validate_python(dump(read.rules)),
        rules_in_words=None if read.rules is None else words(read.rules),
        horizon_days=read.horizon_days,
        not_understood=list(read.not_understood),
        notes=list(read.notes),
    )


def split(reader: Reader | None, asked: TargetRequest) -> tuple[TargetRequest, list[str]]:
    """The request with its sentence in two halves, and notes that tell them.

    Rules that are given are the caller's own plan: then, as with a tuned prompt, the sentence is
    left whole. So is one that nothing hard was found in.
    """
    given = asked.rules is not None or asked.prompt is not None or asked.text is None
    if reader is None or given or not asked.split:
        return asked, []
    plan = plan_of(reader, asked.text or "")
    missed = [f"Not understood: {', '.join(plan.not_understood)}."] if plan.not_understood else []
    if plan.rules is None:
        return asked, missed
    halves = asked.model_copy(update={"text": plan.text or None, "rules": plan.rules})
    told = f"Filtered by: {plan.rules_in_words}."
    ranked = [f"Ranked by: {plan.text!r}."] if plan.text else []
    return halves, [told, *ranked, *missed, *plan.notes]
