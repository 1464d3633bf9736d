"""Rules as JSON and back, what cannot be meant, and what the snapshot does not know."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_repo.plan import Plan, dump_plan, parse_plan
from feature_repo.rule_words import words
from feature_repo.rules import (
    MAX_DEPTH,
    MAX_NODES,
    All,
    AnyOf,
    Behaviour,
    InAudience,
    Not,
    Profile,
    Rule,
    RuleError,
    Segment,
    Users,
    canonical,
    check_size,
    dump,
    parse,
)
from feature_repo.vocabulary import Column, Vocabulary, check, strange_values

VOCABULARY = Vocabulary(
    columns={
        "profile_age": Column(continuous=True),
        "main_store": Column(continuous=False, values=frozenset({"101", "104", "7"})),
    },
    subjects={"bought": frozenset({"CAT FOOD", "CHEESE", "DOG FOODS"})},
)

_names = st.text(min_size=1, max_size=20)
_numbers = st.one_of(
    st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: x + 0.0)
)
_bounds = st.one_of(st.none(), st.integers(0, 50))
_leaves = st.one_of(
    st.builds(Profile, _names, st.sampled_from(["is", "is_not"]), st.one_of(_names, _numbers)),
    st.builds(Profile, _names, st.just("in"), st.lists(_names, min_size=1, max_size=3).map(tuple)),
    st.builds(Profile, _names, st.sampled_from(["at_least", "at_most"]), _numbers),
    st.builds(
        Profile, _names, st.just("between"), st.tuples(_numbers, _numbers).map(sorted).map(tuple)
    ),
    st.builds(Profile, _names, st.just("known")),
    st.builds(
        Behaviour,
        st.sampled_from(["bought", "clicked"]),
        st.one_of(st.none(), _names),
        st.one_of(st.none(), st.integers(1, 365)),
        st.sampled_from(["count", "amount"]),
        st.integers(0, 5),
        st.one_of(st.none(), st.integers(5, 50)),
    ),
    st.builds(Segment, _names),
    st.builds(Users, st.lists(_names, min_size=1, max_size=4).map(tuple)),
    st.builds(InAudience, _names),
)


def _grown(inner: st.SearchStrategy[Rule]) -> st.SearchStrategy[Rule]:
    some = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(st.builds(All, some), st.builds(AnyOf, some), st.builds(Not, inner))


rules = st.recursive(_leaves, _grown, max_leaves=6)
quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine


@quick
@given(rules)
def test_a_rule_survives_json(rule: Rule) -> None:
    try:
        check_size(rule)
    except RuleError:
        return
    assert parse(json.loads(json.dumps(dump(rule)))) == rule


@quick
@given(rules)
def test_equal_rules_and_only_they_have_one_canonical_form(rule: Rule) -> None:
    assert canonical(rule) == canonical(rule)
    assert canonical(Not(rule)) != canonical(rule)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ([], "rules: expected an object with a 'type', got []"),
        ({"type": "al", "rules": []}, "rules: unknown type 'al'; nearest: 'all'"),
        ({"type": "all", "rules": []}, "rules.all.rules: expected one rule or more, got ()"),
        ({"type": "all"}, "rules.all.rules: this field is required"),
        ({"type": "not", "rule": {"type": "users", "ids": []}}, "rules.not.users.ids: expected 1"),
        (
            {"type": "profile", "colum": "age", "op": "known"},
            "rules.profile: unknown field 'colum'; nearest: 'column'",
        ),
        (
            {"type": "profile", "column": "age", "op": "like", "value": "%"},
            "rules.profile.op: expected one of is, is_not, in, at_least",
        ),
        (
            {"type": "profile", "column": "age", "op": "between", "value": [5, 3]},
            "rules.profile.value: expected two numbers, the smaller first for 'between', got (5, 3",
        ),
        (
            {"type": "profile", "column": "age", "op": "at_least", "value": True},
            "rules.profile.value: expected a number for 'at_least', got True",
        ),
        (
            {"type": "all", "rules": [{"type": "behaviour", "verb": "bought", "days": 0}]},
            "rules.all[0].behaviour.days: expected 1 to 3650, got 0",
        ),
        (
            {"type": "behaviour", "verb": "bought", "at_least": 3, "at_most": 2},
            "rules.behaviour.at_most: expected at least at_least (3), got 2",
        ),
        ({"type": "behaviour", "verb": "ate"}, "rules.behaviour.verb: expected one of bought"),
        (
            {"type": "behaviour", "verb": "bought", "at_least": float("nan")},
            "rules.behaviour.at_least: expected a number from 0 on, got nan",
        ),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_place(node: Any, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse(node)
    assert str(caught.value).startswith(message)


def test_trees_that_are_too_deep_or_too_large_are_refused() -> None:
    leaf = {"type": "segment", "name": "a"}
    deep: dict[str, Any] = leaf
    for _ in range(MAX_DEPTH - 1):
        deep = {"type": "not", "rule": deep}
    parse(deep)
    with pytest.raises(RuleError, match="levels"):
        parse({"type": "not", "rule": deep})
    wide = {"type": "any", "rules": [leaf] * (MAX_NODES - 1)}
    parse(wide)
    with pytest.raises(RuleError, match=f"at most {MAX_NODES} rules"):
        parse({"type": "not", "rule": wide})


def test_behaviour_without_bounds_means_once() -> None:
    assert Behaviour("bought").bounds == (1, float("inf"))
    assert Behaviour("bought", at_most=0).bounds == (0, 0)
    assert Behaviour("bought", measure="amount", at_most=20).bounds == (0, 20)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Profile("profile_agee", "known"), "unknown column 'profile_agee'; nearest: 'profile_age'"),
        (Profile("main_store", "at_least", 7), "main_store is no number but one of 101, 104, 7…"),
        (Profile("main_store", "is", 7), "main_store is text, got 7"),
        (Profile("profile_age", "is", "45"), "profile_age is a number, got '45'"),
        (
            Not(Behaviour("bought", "cat fod")),
            "unknown subject of 'bought' 'cat fod'; nearest: 'CAT FOOD'",
        ),
        (Behaviour("clicked", "CHEESE"), "unknown subject of 'clicked' 'CHEESE'; this"),
        (Segment("loyal"), "this snapshot carries no segments, got 'loyal'"),
    ],
)  # fmt: skip
def test_what_the_snapshot_does_not_know_is_told_with_what_is_near(
    rule: Rule, message: str
) -> None:
    with pytest.raises(RuleError) as caught:
        check(All((rule,)), VOCABULARY)
    assert message in str(caught.value)


def test_a_value_that_nobody_has_is_a_note() -> None:
    rule = All((Profile("main_store", "in", ("104", "110")), Profile("profile_age", "at_least", 9)))
    check(rule, VOCABULARY)
    assert strange_values(rule, VOCABULARY) == [
        "Nobody's main_store is '110' (nearest: '104', '101')."
    ]


def test_a_plan_survives_json_and_names_what_is_wrong() -> None:
    plan = Plan(
        "women who buy cat food, soon", "buy cat food", Not(Users(("1",))), 28, ("soon",), ("n",)
    )
    assert parse_plan(json.loads(json.dumps(dump_plan(plan)))) == plan
    with pytest.raises(RuleError, match=r"plan\.rules\.not\.users\.ids: expected"):
        parse_plan({"rules": {"type": "not", "rule": {"type": "users", "ids": 3}}})
    with pytest.raises(RuleError, match=r"plan: unknown field 'rule'; nearest: 'rules'"):
        parse_plan({"rule": None})
    with pytest.raises(RuleError, match=r"plan\.horizon_days: expected 1 to 366, got 0"):
        parse_plan({"horizon_days": 0})


def test_words_of_a_nested_rule() -> None:
    rule = All(
        (
            AnyOf((Profile("main_store", "in", ("7", "9")), InAudience("a1"))),
            Not(Behaviour("bought", "TEA", days=30, at_least=2, at_most=4)),
        )
    )
    assert words(rule) == (
        "(main_store in 7, 9 or in the audience 'a1') and "
        "not (bought 'TEA' at least 2 times and at most 4 times in the last 30 days)"
    )
