"""Whatever a sentence says, its rules are ones that the snapshot takes; the rest is named."""

from __future__ import annotations

from datetime import datetime

import pytest

from encoders.catalogue import Catalogue, Subject
from encoders.demand import DemandParser
from encoders.demand_subjects import Subjects
from feature_repo.plan import MAX_TEXT, Plan
from feature_repo.rules import MAX_NAME, All, Behaviour, Not, Profile, nodes
from feature_repo.schema import MAX_TEXT as LONGEST_IN_TABLES
from feature_repo.vocabulary import Column, Vocabulary, check
from sdk.rules import BehaviourRule, ProfileRule

LONG = "COFFEE " + " ".join(f"ROAST{n}" for n in range(60))
HEADINGS = Catalogue.of([
    Subject("purchase", "COFFEE", 1, "", 9), Subject("purchase", "MILK", 1, "", 5),
    Subject("click", "TEA", 1, "", 7), Subject("purchase", LONG, 1, "", 3),
]).headings  # fmt: skip
VOCABULARY = Vocabulary(
    {"profile_income": Column(True)},
    {
        "bought": frozenset({"COFFEE", "MILK", LONG}),
        "clicked": frozenset({"COFFEE", "TEA"}),
        "searched": frozenset({"Coffee", "iced tea"}),
    },
)


def read(demand: str, vocabulary: Vocabulary = VOCABULARY) -> Plan:
    plan = DemandParser(vocabulary, Subjects(HEADINGS), as_of=datetime(2024, 1, 1)).read(demand)
    if plan.rules is not None:
        check(plan.rules, vocabulary)
    return plan


def test_what_people_searched_for_is_a_text_and_no_heading() -> None:
    assert read("people who searched for coffee in the last 30 days").rules == (
        Behaviour("searched", "Coffee", 30)
    )
    assert read("people who searched for iced teas").rules == Behaviour("searched", "iced tea")
    plan = read("people who searched for milk in the last 30 days")
    assert (plan.rules, plan.not_understood) == (None, ("milk",))


@pytest.mark.parametrize(
    ("demand", "missed"),
    [
        ("will buy coffee but have not bought tea in the last 30 days", ("tea",)),
        ("will buy coffee, no tea in the last 30 days", ("tea",)),
        ("will buy coffee, bought tea and sugar", ("tea",)),
        ("will buy tea, not bought in the last 30 days", ("not bought",)),
        ("will buy tea, not bought it in the last 30 days", ("it",)),
        ("whose last purchase of tea was more than 30 days ago", ("tea",)),
        ("bought coffee fewer than 0 times", ("bought coffee fewer than 0 times",)),
        ("bought coffee exactly 0.5 times", ("bought coffee exactly 0.5 times",)),
        ("whose last purchase was more than 4000 days ago", ("was more than 4000 days ago",)),
        ("inactive for 0 days", ("inactive for 0 days",)),
    ],
)
def test_what_no_rule_can_say_is_not_understood(demand: str, missed: tuple[str, ...]) -> None:
    plan = read(demand)
    assert (plan.rules, plan.not_understood) == (None, missed)


def test_where_nothing_is_bought_no_rule_is_about_it() -> None:
    clicks = Vocabulary({}, {"clicked": frozenset({"TEA"})})
    for demand in ("no tea in the last 30 days", "clicked tea, not bought it in the last 30 days",
                   "whose last purchase of tea was more than 9 days ago"):  # fmt: skip
        assert read(demand, clicks).not_understood != ()


def test_what_can_be_said_is_kept_beside_what_cannot() -> None:
    plan = read("bought coffee or tea in the last 30 days, spent over 20 dollars on milk")
    assert plan.not_understood == ("tea",)
    assert plan.rules == All((
        Behaviour("bought", "COFFEE", 30), Behaviour("bought", "MILK", None, "amount", 20.0)
    ))  # fmt: skip


def test_it_is_what_the_verb_knows_it_as() -> None:
    plan = read("searched for coffee, but did not buy it in the last 30 days")
    assert plan.rules == All(
        (Behaviour("searched", "Coffee"), Not(Behaviour("bought", "COFFEE", 30)))
    )


def test_a_name_as_long_as_the_tables_allow_can_be_asked_for() -> None:
    assert read("bought roast59 coffee in the last 30 days").rules == Behaviour("bought", LONG, 30)
    longest = "X" * LONGEST_IN_TABLES
    assert MAX_NAME == LONGEST_IN_TABLES
    assert BehaviourRule(verb="bought", subject=longest).subject == longest
    assert ProfileRule(column="profile_plan", op="is", value=longest).value == longest


def test_an_income_is_not_scaled_past_its_own_end() -> None:
    assert read("people earning between 500 and 2000 dollars").rules == (
        Profile("profile_income", "between", (500.0, 2_000.0))
    )
    incomes = Column(False, frozenset(str(n) for n in range(30_000, 32_000)))
    plan = read("people earning over 20000 dollars", Vocabulary({"profile_income": incomes}, {}))
    assert plan.rules is None and len(plan.not_understood) == 1


@pytest.mark.parametrize(
    ("column", "said"),
    [("Age", "people over 45"), ("AGE", "aged over 45"), ("CustomerAge", "people over 45"),
     ("Customer age", "people over 45"), ("AGEYears", "people over 45"),
     ("LoyaltyScore", "loyalty score is over 45"), ("NPS-Score", "NPS score over 45")],
)  # fmt: skip
def test_a_column_is_found_however_its_name_is_spelt(column: str, said: str) -> None:
    plan = read(said, Vocabulary({f"profile_{column}": Column(True)}, {}))
    assert plan.rules == Profile(f"profile_{column}", "at_least", 45.0)
    assert plan.not_understood == ()


def test_values_of_a_capital_column_are_said_after_its_name() -> None:
    city = {"profile_HomeCity": Column(False, frozenset({"Berlin", "Seoul"}))}
    plan = read("home city is Berlin or Seoul", Vocabulary(city, {}))
    assert plan.rules == Profile("profile_HomeCity", "in", ("Berlin", "Seoul"))
    odd = Vocabulary({"profile_#": Column(True)}, {})
    assert read("will buy coffee over 45", odd).rules is None


def test_more_rules_than_a_plan_holds_are_left_out_with_a_note() -> None:
    names = [f"X{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"][:260]
    headings = [Subject("purchase", name, 1, "", 1) for name in names]
    vocabulary = Vocabulary({}, {"bought": frozenset(names)})
    parser = DemandParser(vocabulary, Subjects(headings), as_of=datetime(2024, 1, 1))
    plan = parser.read("bought " + ", ".join(names) + " or Xaa")
    assert plan.rules is None and plan.notes == ("The rules are too many to be kept.",)


def test_characters_that_are_written_out_do_not_make_a_demand_too_long() -> None:
    plan = read("ﷺ" * 300)
    assert len(plan.demand) == 300 and len(plan.text) == MAX_TEXT


def test_every_rule_is_of_a_known_subject() -> None:
    plan = read("bought milk, clicked tea, searched for coffee and iced tea")
    assert plan.rules is not None
    found = {(one.verb, one.subject) for one in nodes(plan.rules) if isinstance(one, Behaviour)}
    assert found == {("bought", "MILK"), ("clicked", "TEA"), ("searched", "Coffee"),
                     ("searched", "iced tea")}  # fmt: skip
