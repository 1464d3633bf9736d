"""A rule in words, for people to check what a plan does."""

from __future__ import annotations

import math

from feature_repo.rules import (
    All,
    AnyOf,
    Behaviour,
    InAudience,
    Not,
    Profile,
    Rule,
    Segment,
    Users,
)


def words(rule: Rule) -> str:
    """The rule in words, for people.

    >>> words(All((Profile("age", "at_least", 45), Not(Behaviour("bought", "TEA", days=30)))))
    "age at least 45 and not (bought 'TEA' in the last 30 days)"
    """
    match rule:
        case All(rules):
            return " and ".join(_bracketed(one) for one in rules)
        case AnyOf(rules):
            return " or ".join(_bracketed(one) for one in rules)
        case Not(inner):
            return f"not ({words(inner)})"
        case Profile():
            return _profile_words(rule)
        case Behaviour():
            return _behaviour_words(rule)
        case Segment(name):
            return f"in the segment {name!r}"
        case Users(ids):
            return f"one of {len(ids):,} named users"
        case InAudience(audience):
            return f"in the audience {audience!r}"


def _bracketed(rule: Rule) -> str:
    return f"({words(rule)})" if isinstance(rule, All | AnyOf) else words(rule)


def _profile_words(rule: Profile) -> str:
    said = rule.op.replace("_", " ")
    if isinstance(rule.value, tuple):
        joint = " and " if rule.op == "between" else ", "
        return f"{rule.column} {said} {joint.join(map(str, rule.value))}"
    return f"{rule.column} {said}{'' if rule.value is None else f' {rule.value}'}"


def _behaviour_words(rule: Behaviour) -> str:
    what = "anything" if rule.subject is None else repr(rule.subject)
    low, high = rule.bounds
    unit = "times" if rule.measure == "count" else "of money"
    much = []
    if low > (1 if rule.measure == "count" else 0):
        much.append(f"at least {low:g} {unit}")
    if high < math.inf:
        much.append(f"at most {high:g} {unit}")
    when = "" if rule.days is None else f" in the last {rule.days} days"
    return f"{rule.verb} {what}{' ' if much else ''}{' and '.join(much)}{when}"
