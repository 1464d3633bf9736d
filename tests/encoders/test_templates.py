"""The five kinds of sentences about the future."""

import doctest
import math

import pytest

from encoders import templates
from encoders.templates import format_number, horizon_phrase, list_items, round_down, sentence
from feature_repo.schema import FACT_KINDS, OUTCOME_NAMES


def test_the_purchase_template_is_the_papers_word_for_word() -> None:
    assert templates._TEMPLATES["purchase"][0] == (
        "The user purchased {items} amounting more than {num} dollars with {status} payment."
    )
    assert sentence("purchase", ["gold"], num=10_000, status="failed") == (
        "The user purchased gold amounting more than 10,000 dollars with failed payment."
    )


def test_there_are_five_kinds_and_they_are_the_schemas() -> None:
    assert sorted(templates._TEMPLATES) == sorted(FACT_KINDS)


@pytest.mark.parametrize("kind", FACT_KINDS)
def test_every_wording_names_the_item_and_leaves_no_gap(kind: str) -> None:
    number = templates.num_wordings(kind)
    said = [
        sentence(kind, ["CAT Food"], num=2_000, horizon_days=28, wording=w) for w in range(number)
    ]
    assert len(set(said)) == number > 1
    for wording, words in enumerate(said):
        assert "cat food" in words
        assert not set("{}") & set(words)
        assert ("more than 2,000" in words) == (wording == 0)
    assert any("four weeks" in words for words in said)
    with pytest.raises(IndexError):
        sentence(kind, ["cat food"], wording=number)


def test_buying_nothing_has_wordings_of_its_own() -> None:
    number = templates.num_wordings("purchase", nothing=True)
    said = [
        sentence("purchase", [templates.NOTHING], horizon_days=14, wording=w) for w in range(number)
    ]
    assert said[0] == "The user purchased nothing."
    assert "will not shop at all in the next two weeks" in said
    assert len(set(said)) == number
    assert not set(said) & {sentence("purchase", ["x"], wording=w) for w in range(6)}
    with pytest.raises(IndexError):
        sentence("purchase", [templates.NOTHING], wording=number)


def test_only_visits_searches_and_clicks_are_counted() -> None:
    assert {kind for kind in FACT_KINDS if templates.is_counted(kind)} == {
        "browsing", "search", "click",
    }  # fmt: skip
    for kind in FACT_KINDS:
        unit = "times" if templates.is_counted(kind) else "dollars"
        assert unit in sentence(kind, ["x"], num=5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (2.0, "2"), (999, "999"), (1_000, "1,000"), (2.5, "2.50"), (1_234_567.891,
     "1,234,567.89"), (5e6, "5,000,000"), (-20.0, "-20")],
)  # fmt: skip
def test_numbers_have_separators_and_no_needless_fraction(value: float, expected: str) -> None:
    assert format_number(value) == expected


def test_round_down_finds_the_largest_step_below() -> None:
    steps = [step * 10.0**power for power in range(8) for step in (1, 2, 5)]
    values = [
        *steps, *(math.nextafter(s, math.inf) for s in steps), *(s * 1.37 for s in steps), 0.99,
        *(s - 0.001 for s in steps if s > 1), *range(1, 200),
    ]  # fmt: skip
    for value in values:
        assert round_down(value) == max((s for s in steps if s <= value), default=0.0), value
    assert round_down(-5.0) == 0.0


def test_round_down_just_below_a_power_of_ten() -> None:
    assert round_down(math.nextafter(1000.0, 0.0)) == 500.0


def test_lists_are_cut_after_three_names() -> None:
    assert list_items(["A"]) == "a"
    assert list_items(["A", "b", "C"]) == "a, b, c"
    assert list_items(["A", "b", "C", "d", "e"]) == "a, b, c, etc."
    assert "gold, bars, rings, etc. amounting" in sentence(
        "purchase", ["gold", "bars", "rings", "coins"]
    )


@pytest.mark.parametrize(
    ("days", "expected"),
    [(7, "one week"), (14, "two weeks"), (28, "four weeks"), (56, "eight weeks"), (63, "63 days"),
     (10, "10 days"), (0, "0 days")],
)  # fmt: skip
def test_horizons_are_spoken(days: int, expected: str) -> None:
    assert horizon_phrase(days) == expected


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(templates)
    assert result.failed == 0
    assert result.attempted >= 5


@pytest.mark.parametrize("outcome", OUTCOME_NAMES)
def test_every_outcome_has_several_sentences_that_name_the_horizon(outcome: str) -> None:
    num = templates.num_outcome_wordings(outcome)
    for days, spoken in ((14, "two weeks"), (56, "eight weeks"), (10, "10 days")):
        said = [
            templates.outcome_sentence(outcome, horizon_days=days, wording=n) for n in range(num)
        ]
        assert num >= 4 and len(set(said)) == num
        assert all(spoken in each and "{" not in each for each in said), said
    with pytest.raises(IndexError):
        templates.outcome_sentence(outcome, horizon_days=14, wording=num)


def test_outcomes_do_not_share_sentences() -> None:
    said = [
        templates.outcome_sentence(outcome, horizon_days=28, wording=n)
        for outcome in OUTCOME_NAMES
        for n in range(templates.num_outcome_wordings(outcome))
    ]
    assert len(set(said)) == len(said)


def test_a_habit_is_said_as_a_plain_fact_of_four_weeks() -> None:
    for kind in FACT_KINDS:
        plain = sentence(kind, ["CHEESE"], horizon_days=28, wording=1)
        assert templates.habit_sentence(kind, "CHEESE") == plain
