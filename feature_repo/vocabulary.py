"""What rules may speak of in one snapshot, and the check that they speak of nothing else.

Whoever turns demands into rules finds its words here; whoever filters refuses what is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feature_repo.nearest import nearest, shown, unknown
from feature_repo.rules import Behaviour, Profile, Rule, RuleError, Segment, check_size, nodes


@dataclass(frozen=True)
class Column:
    """A profile column: a number, or one of the ``values`` that occur."""

    continuous: bool
    values: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Vocabulary:
    """What rules may speak of in one snapshot: columns by name, subjects by verb."""

    columns: Mapping[str, Column]
    subjects: Mapping[str, frozenset[str]]


def check(rule: Rule, vocabulary: Vocabulary, *, path: str = "rules") -> None:
    """Raise :class:`RuleError` where the rule speaks of what the snapshot does not know.

    A value that nobody has is no mistake: tomorrow somebody may.
    """
    check_size(rule, path=path)
    for one in nodes(rule):
        if isinstance(one, Profile):
            _check_profile(one, vocabulary, path)
        elif isinstance(one, Behaviour) and one.subject is not None:
            known = vocabulary.subjects.get(one.verb, frozenset())
            if one.subject not in known:
                raise RuleError(unknown(path, f"subject of {one.verb!r}", one.subject, known))
        elif isinstance(one, Segment):
            raise RuleError(
                f"{path}: this snapshot carries no segments, got {one.name!r}; say it by profile "
                "or behaviour, or save an audience and name that"
            )


def strange_values(rule: Rule, vocabulary: Vocabulary) -> list[str]:
    """Notes on values of profile rules that no user of the snapshot has."""
    notes = []
    for one in nodes(rule):
        if isinstance(one, Profile) and one.column in vocabulary.columns:
            column = vocabulary.columns[one.column]
            asked = one.value if isinstance(one.value, tuple) else (one.value,)
            for value in (
                asked if one.op in ("is", "is_not", "in") and not column.continuous else ()
            ):
                if value not in column.values:
                    near = nearest(str(value), column.values)
                    notes.append(f"Nobody's {one.column} is {value!r}{near and f' ({near})'}.")
    return notes


def _check_profile(rule: Profile, vocabulary: Vocabulary, path: str) -> None:
    column = vocabulary.columns.get(rule.column)
    if column is None:
        raise RuleError(unknown(path, "column", rule.column, vocabulary.columns))
    numeric = rule.op in ("at_least", "at_most", "between")
    values = rule.value if isinstance(rule.value, tuple) else (rule.value,)
    if rule.op == "known":
        return
    if numeric and not column.continuous:
        near = ", ".join(sorted(column.values)[:5])
        raise RuleError(
            f"{path}: {rule.column} is no number but one of {near or 'no values'}…, so {rule.op!r} "
            "cannot be asked of it; use 'is' or 'in'"
        )
    wanted, kind = ("a number", (int, float)) if column.continuous else ("text", (str,))
    for value in values:
        if not isinstance(value, kind):
            raise RuleError(f"{path}: {rule.column} is {wanted}, got {shown(value)}")
