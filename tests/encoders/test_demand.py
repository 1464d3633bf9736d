"""Demands as rules and text, against plans that were written before the parser (tests/demands)."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.catalogue import Catalogue, Subject
from encoders.demand import DemandParser
from encoders.demand_bands import band
from encoders.demand_subjects import Subjects
from encoders.grounding import CatalogueRewriter
from encoders.language_model import MINILM, load_language_model
from encoders.text import LineEncoder
from feature_repo.plan import Plan, dump_plan, parse_plan
from feature_repo.rules import All, AnyOf, Behaviour, InAudience, Not, Profile, Rule, Users
from feature_repo.sources import complete_journey
from feature_repo.vocabulary import Column, Vocabulary, check

ROOT = Path(__file__).parents[2]
WRITTEN = json.loads((ROOT / "tests/demands/plans.json").read_text())
RECEIPTS = {
    "main_store": Column(False, frozenset({"292", "356", "367"})),
    "top_department": Column(False, frozenset({"GROCERY", "PRODUCE", "MEAT", "DELI"})),
    "main_daypart": Column(False, frozenset({"morning", "afternoon", "evening", "night"})),
    "agg_tenure_days": Column(True),
    "agg_basket_value": Column(True),
}


def is_held_out(demand: str) -> bool:
    return hashlib.sha256(demand.encode()).digest()[0] % 2 == 1


def fits(wanted: list[dict[str, Any]], rules: Rule | None) -> tuple[int, int]:
    """How many of the wanted rules are there, and how many others are."""
    found = [] if rules is None else list(rules.rules) if isinstance(rules, All) else [rules]
    right = 0
    for want in wanted:
        for rule in found:
            if is_same(want, rule):
                found.remove(rule)
                right += 1
                break
    return right, len(found)


def is_same(want: dict[str, Any], rule: Rule) -> bool:
    """Whether a rule says exactly what is wanted."""
    if "not" in want:
        return isinstance(rule, Not) and is_same(want["not"], rule.rule)
    if "any" in want:
        return isinstance(rule, AnyOf) and fits(want["any"], All(rule.rules)) == (
            len(want["any"]), 0,
        )  # fmt: skip
    if "audience" in want:
        return rule == InAudience(want["audience"])
    if "users" in want:
        return isinstance(rule, Users) and set(rule.ids) == set(want["users"])
    if "column" in want:
        return isinstance(rule, Profile) and _same_column(want, rule)
    return isinstance(rule, Behaviour) and _same_behaviour(want, rule)


def _same_column(want: dict[str, Any], rule: Profile) -> bool:
    if rule.column != want["column"]:
        return False
    values = rule.value if isinstance(rule.value, tuple) else (rule.value,)
    if "in" in want:
        return rule.op in ("is", "in") and set(values) == set(want["in"])
    low, high = (None if end is None else float(end.split()[-1]) for end in
                 (want["least"], want["most"]))  # fmt: skip
    ends = {"at_least": (values[0], None), "at_most": (None, values[0]), "between": values}
    return ends.get(rule.op) == (low, high)


def _same_behaviour(want: dict[str, Any], rule: Behaviour) -> bool:
    subjects = want["what"] if isinstance(want["what"], list) else [want["what"]]
    if rule.verb != want["did"] or rule.subject not in subjects or rule.days != want["days"]:
        return False
    if "spend" in want:
        return rule.measure == "amount" and rule.bounds == _ends(want["spend"], step=0)
    return rule.measure == "count" and rule.bounds == _ends(want.get("times", ">= 1"), step=1)


def _ends(said: str, *, step: int) -> tuple[float, float]:
    """Both ends of "> 2", "<= 1", "= 4" or "2..5"; an open end moves by ``step``."""
    if ".." in said:
        low, high = said.split("..")
        return float(low), float(high)
    sign, number = said.split()
    n = float(number)
    low = {">": n + step, ">=": n, "=": n}.get(sign, 0.0)
    return low, {"<": n - step, "<=": n, "=": n}.get(sign, float("inf"))


def demographics() -> dict[str, Column]:
    table = pq.read_table(complete_journey.data_folder() / "demographics.parquet").drop_columns(
        ["household_id"]
    )
    return {
        f"profile_{name}": Column(False, frozenset(set(table[name].to_pylist()) - {None}))
        for name in table.column_names
    }


@pytest.fixture(scope="module")
def parsers(receipts_catalogue: Catalogue) -> dict[str, DemandParser]:
    lines = LineEncoder()
    known = frozenset(load_language_model(MINILM)[0].get_vocab())
    names = frozenset(subject.name for subject in receipts_catalogue.items)
    told = {"bought": names, "redeemed": frozenset()}
    shop = WRITTEN["contexts"]["shop"]
    shop_catalogue = Catalogue.of([Subject("click", n, 1, "", 1) for n in shop["subjects"]])
    columns = {n: Column(v is None, frozenset(v or ())) for n, v in shop["columns"].items()}
    shop_names = frozenset(shop["subjects"])

    def parser(vocabulary: Vocabulary, of: Catalogue, as_of: str) -> DemandParser:
        nearest = CatalogueRewriter(of, lines, lines.once, horizon_days=28).nearest
        ground = Subjects(of.headings, nearest)
        return DemandParser(
            vocabulary, ground, as_of=datetime.fromisoformat(as_of), known=known
        )  # fmt: skip

    as_of = {name: context["as_of"] for name, context in WRITTEN["contexts"].items()}
    return {
        "receipts": parser(Vocabulary(RECEIPTS, told), receipts_catalogue, as_of["receipts"]),
        "households": parser(
            Vocabulary({**RECEIPTS, **demographics()}, told), receipts_catalogue,
            as_of["households"],
        ),  # fmt: skip
        "shop": parser(
            Vocabulary(columns, {verb: shop_names for verb in shop["verbs"]}),
            shop_catalogue, as_of["shop"],
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def plans(parsers: dict[str, DemandParser]) -> list[tuple[dict[str, Any], Plan]]:
    return [(row, parsers[row["context"]].read(row["demand"])) for row in WRITTEN["demands"]]


@pytest.mark.parametrize("held_out", [False, True])
def test_nine_of_ten_rules_are_exactly_right(
    plans: list[tuple[dict[str, Any], Plan]], held_out: bool
) -> None:
    rows = [(row, plan) for row, plan in plans if is_held_out(row["demand"]) == held_out]
    counts = [fits(row["rules"], plan.rules) for row, plan in rows]
    right, invented = sum(n for n, _ in counts), sum(n for _, n in counts)
    wanted = sum(len(row["rules"]) for row, _ in rows)
    assert wanted >= 60
    assert right / wanted >= 0.9
    assert right / (wanted + invented) >= 0.83


def test_what_is_not_understood_is_said(plans: list[tuple[dict[str, Any], Plan]]) -> None:
    asked = [(row, plan) for row, plan in plans if row["unread"]]
    said = sum(
        all(any(each.lower() in one.lower() or one.lower() in each.lower()
                for one in plan.not_understood) for each in row["unread"])
        for row, plan in asked
    )  # fmt: skip
    assert len(asked) >= 20
    assert said / len(asked) >= 0.8


def test_soft_demands_stay_as_they_are(
    parsers: dict[str, DemandParser], receipts_catalogue: Catalogue
) -> None:
    groups = json.loads((ROOT / "ray_jobs/demands/complete_journey.json").read_text())
    texts = [d for group in groups.values() for demands in group.values() for d in demands]
    texts += [s.sentence(horizon_days=28) for s in receipts_catalogue.headings]
    assert len(texts) > 400
    for text in texts:
        plan = parsers["households"].read(text)
        assert (plan.rules, plan.text) == (None, text)


def test_plans_are_data_that_the_engine_accepts(
    plans: list[tuple[dict[str, Any], Plan]], everything: Vocabulary
) -> None:
    for row, plan in plans:
        assert parse_plan(json.loads(json.dumps(dump_plan(plan)))) == plan
        if plan.rules is not None and row["context"] != "shop":
            check(plan.rules, everything)


@pytest.fixture(scope="module")
def everything(receipts_catalogue: Catalogue) -> Vocabulary:
    names = frozenset(subject.name for subject in receipts_catalogue.items)
    return Vocabulary({**RECEIPTS, **demographics()}, {"bought": names, "redeemed": frozenset()})


def test_the_missions_sentence(parsers: dict[str, DemandParser]) -> None:
    demand = "women over 45 likely to buy cat food, not bought in the last 30 days"
    plan = parsers["households"].read(demand)
    assert plan.text == "women likely to buy cat food"
    assert plan.not_understood == ("women",)
    age, denied = plan.rules.rules  # type: ignore[union-attr]
    assert age == Profile("profile_age", "in", ("45-54", "55-64", "65+"))
    assert denied == Not(Behaviour("bought", "CAT FOOD", 30))
    assert any("bands" in note for note in plan.notes)


def test_the_future_is_the_horizon_and_no_rule(parsers: dict[str, DemandParser]) -> None:
    plan = parsers["receipts"].read("will buy beer in the next four weeks")
    assert (plan.rules, plan.horizon_days) == (None, 28)


def test_either_of_two_statements(parsers: dict[str, DemandParser]) -> None:
    plan = parsers["households"].read("married or homeowners")
    assert isinstance(plan.rules, AnyOf) and len(plan.rules.rules) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(
    "not bought spent over 45 dollars in the last 30 days cat food , ; \" users 12 and or women "
    "with kids no coupon $ -5 since 2017-13-45 ' ( ) next never audience searched clicked times "
    "fewer than 0 last purchase was more 4000 ago income between 2000 it".split()
), max_size=25).map(" ".join) | st.text(max_size=80))  # fmt: skip
def test_nothing_makes_it_fail(
    parsers: dict[str, DemandParser], everything: Vocabulary, demand: str
) -> None:
    plan = parsers["households"].read(demand)
    assert plan.demand == demand
    parse_plan(dump_plan(plan))
    if plan.rules is not None:
        check(plan.rules, everything)


def test_bands_by_their_spelling() -> None:
    assert band("15-24K") == (15_000.0, 25_000.0)
    assert band("65+") == (65.0, float("inf"))
    assert band("Married") is None
