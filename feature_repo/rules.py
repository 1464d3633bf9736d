"""Hard rules of an audience as a small typed tree.

    women over 45 who have not bought cat food in the last 30 days
    └── All((Profile("profile_gender", "is", "F"), Profile("profile_age", "at_least", 45),
             Not(Behaviour("bought", "CAT FOOD", days=30))))

Pure Python: whoever reads demands and whoever filters users share this vocabulary, and neither
ever sees SQL of the other. The same tree travels as JSON, each node an object with a ``type``:

    {"type": "all", "rules": [{"type": "profile", "column": "profile_age", "op": "at_least",
     "value": 45}, {"type": "not", "rule": {"type": "behaviour", "verb": "bought",
     "subject": "CAT FOOD", "days": 30}}]}

Meaning. Time is counted back from the snapshot's ``as_of``, in days of 24 hours: ``days=30`` is
[as_of - 30 days, as_of). A count is of baskets (of events where there are no baskets); one that
runs past the end of a day counts on both days. Of an unknown profile value every op is false,
``is_not`` too; ``Not`` of it is true.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final, TypeAlias

from feature_repo.errors import InputError
from feature_repo.nearest import shown, unknown

VERBS: Final = ("bought", "clicked", "browsed", "searched", "paid", "received", "redeemed")
"""What a user did. The subject of ``bought``, ``clicked`` and ``browsed`` is a name of any level of
the items' taxonomy; of ``searched`` a search text; of ``paid`` a channel of payment; of
``received`` and ``redeemed`` a campaign. Without a subject: anything."""
OPS: Final = ("is", "is_not", "in", "at_least", "at_most", "between", "known")
MEASURES: Final = ("count", "amount")

MAX_DEPTH: Final = 8
MAX_NODES: Final = 200
MAX_IDS: Final = 10_000
MAX_VALUES: Final = 1_000
MAX_NAME: Final = 2_000  # as long as a text of the tables (schema.MAX_TEXT)
MAX_DAYS: Final = 3_650

Scalar: TypeAlias = str | float


class RuleError(InputError):
    """A rule cannot be meant as it stands; the message begins with the place in the tree."""


@dataclass(frozen=True)
class All:
    """Every one of ``rules`` holds."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", _children(self.rules))


@dataclass(frozen=True)
class AnyOf:
    """At least one of ``rules`` holds."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", _children(self.rules))


@dataclass(frozen=True)
class Not:
    """``rule`` does not hold."""

    rule: Rule

    def __post_init__(self) -> None:
        _need(isinstance(self.rule, Rule), "rule", "a rule", self.rule)


@dataclass(frozen=True)
class Profile:
    """What is known of the user at ``as_of``: one registered column against a value.

    ``value`` is text or a number for ``is`` and ``is_not``, several of them for ``in``, a number
    for ``at_least`` and ``at_most``, two (both ends included) for ``between``, none for ``known``.
    """

    column: str
    op: str
    value: Scalar | tuple[Scalar, ...] | None = None

    def __post_init__(self) -> None:
        _name("column", self.column)
        _one_of("op", self.op, OPS)
        value = tuple(self.value) if isinstance(self.value, list) else self.value
        object.__setattr__(self, "value", value)
        wanted, fits = _VALUES[self.op]
        _need(fits(value), "value", f"{wanted} for {self.op!r}", value)


@dataclass(frozen=True)
class Behaviour:
    """How often, or for how much, the user did something.

    Holds if the ``measure`` over the last ``days`` (None: over all that is recorded) lies within
    ``at_least`` and ``at_most``, both included. A count needs neither: once is enough then.
    ``at_most=0`` is the same as ``Not`` of once.
    """

    verb: str
    subject: str | None = None
    days: int | None = None
    measure: str = "count"
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        _one_of("verb", self.verb, VERBS)
        _one_of("measure", self.measure, MEASURES)
        if self.subject is not None:
            _name("subject", self.subject)
        if self.days is not None:
            whole = isinstance(self.days, int) and not isinstance(self.days, bool)
            _need(whole and 1 <= self.days <= MAX_DAYS, "days", f"1 to {MAX_DAYS}", self.days)
        for name in ("at_least", "at_most"):
            bound = getattr(self, name)
            if bound is not None:
                _need(_number(bound) and bound >= 0, name, "a number from 0 on", bound)
        bounded = self.measure == "count" or (self.at_least, self.at_most) != (None, None)
        _need(bounded, "amount", "a number for at_least or at_most", None)
        low, high = self.bounds
        _need(low <= high, "at_most", f"at least at_least ({low:g})", high)

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends, included; ``inf`` where there is no upper one."""
        if self.at_least is None and self.at_most is None:
            return 1.0, math.inf
        return self.at_least or 0.0, math.inf if self.at_most is None else self.at_most


@dataclass(frozen=True)
class Segment:
    """Member of a registered segment. Reserved: no snapshot carries segments yet."""

    name: str

    def __post_init__(self) -> None:
        _name("name", self.name)


@dataclass(frozen=True)
class Users:
    """One of the users named."""

    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        ids = tuple(self.ids) if isinstance(self.ids, list) else self.ids
        object.__setattr__(self, "ids", ids)
        few = isinstance(ids, tuple) and 1 <= len(ids) <= MAX_IDS
        _need(few, "ids", f"1 to {MAX_IDS:,} user ids", ids)
        for user in ids:
            _name("ids", user)


@dataclass(frozen=True)
class InAudience:
    """Member of a saved audience."""

    id: str

    def __post_init__(self) -> None:
        _name("id", self.id)


Rule: TypeAlias = All | AnyOf | Not | Profile | Behaviour | Segment | Users | InAudience

TYPES: Final[dict[str, type]] = {
    "all": All,
    "any": AnyOf,
    "not": Not,
    "profile": Profile,
    "behaviour": Behaviour,
    "segment": Segment,
    "users": Users,
    "audience": InAudience,
}
"""The ``type`` of a node in JSON → its class."""


def parse(node: Any, *, path: str = "rules") -> Rule:
    """The rule of a JSON document. Raises :class:`RuleError` naming the place and the remedy.

    >>> parse({"type": "not", "rule": {"type": "behaviour", "verb": "bought", "days": 30}})
    Not(rule=Behaviour(verb='bought', subject=None, days=30, measure='count', at_least=None, \
at_most=None))
    """
    rule = _parse(node, path, 1)
    check_size(rule, path=path)
    return rule


def dump(rule: Rule) -> dict[str, Any]:
    """The JSON document of a rule; what :func:`parse` reads. Defaults are left out."""
    found: dict[str, Any] = {"type": _type_of(rule)}
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.default is MISSING or value != field.default:
            found[field.name] = _dumped(value)
    return found


def canonical(rule: Rule | None) -> str:
    """One line of JSON: the same for equal rules."""
    return json.dumps(None if rule is None else dump(rule), sort_keys=True, ensure_ascii=False)


def nodes(rule: Rule) -> Iterator[Rule]:
    """The rule and all below it, from the top."""
    yield rule
    for child in _below(rule):
        yield from nodes(child)


def check_size(rule: Rule, *, path: str = "rules") -> None:
    """Raise :class:`RuleError` for a tree that is too deep or has too many nodes."""
    level, count, depth = [rule], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > MAX_DEPTH:
            raise RuleError(f"{path}: expected at most {MAX_DEPTH} levels, got more; flatten them")
        if count > MAX_NODES:
            raise RuleError(
                f"{path}: expected at most {MAX_NODES} rules, got more; name several values "
                "with the op 'in', or save a part as an audience"
            )
        level = [child for one in level for child in _below(one)]


# --- parsing


def _parse(node: Any, path: str, depth: int) -> Rule:
    if depth > MAX_DEPTH:
        raise RuleError(f"{path}: expected at most {MAX_DEPTH} levels, got more; flatten them")
    if not isinstance(node, Mapping):
        raise RuleError(f"{path}: expected an object with a 'type', got {shown(node)}")
    name = node.get("type")
    if not isinstance(name, str) or name not in TYPES:
        raise RuleError(unknown(path, "type", name, TYPES))
    kind = TYPES[name]
    given = {key: value for key, value in node.items() if key != "type"}
    known = {field.name: field.default is MISSING for field in fields(kind)}
    for key in given:
        if key not in known:
            raise RuleError(unknown(f"{path}.{name}", "field", key, known))
    for key, required in known.items():
        if required and key not in given:
            raise RuleError(f"{path}.{name}.{key}: this field is required")
    if kind in (All, AnyOf):
        given["rules"] = _parse_list(given["rules"], f"{path}.{name}", depth)
    elif kind is Not:
        given["rule"] = _parse(given["rule"], f"{path}.not", depth + 1)
    try:
        return kind(**given)  # type: ignore[no-any-return]
    except RuleError as error:
        raise RuleError(f"{path}.{name}.{error}") from None


def _parse_list(given: Any, path: str, depth: int) -> tuple[Rule, ...]:
    if not isinstance(given, list | tuple) or len(given) > MAX_NODES:
        raise RuleError(f"{path}.rules: expected 1 to {MAX_NODES} rules, got {shown(given)}")
    return tuple(_parse(one, f"{path}[{n}]", depth + 1) for n, one in enumerate(given))


def _type_of(rule: Rule) -> str:
    return next(name for name, kind in TYPES.items() if type(rule) is kind)


def _dumped(value: Any) -> Any:
    if isinstance(value, Rule):
        return dump(value)
    return [_dumped(one) for one in value] if isinstance(value, tuple) else value


def _below(rule: Rule) -> tuple[Rule, ...]:
    if isinstance(rule, All | AnyOf):
        return rule.rules
    return (rule.rule,) if isinstance(rule, Not) else ()


# --- checking


def _number(value: Any) -> bool:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return numeric and math.isfinite(value)


def _scalar(value: Any) -> bool:
    return _number(value) or (isinstance(value, str) and 1 <= len(value) <= MAX_NAME)


_VALUES: Final[dict[str, tuple[str, Any]]] = {
    "is": ("text or a number", _scalar),
    "is_not": ("text or a number", _scalar),
    "in": (
        f"1 to {MAX_VALUES} texts or numbers",
        lambda v: isinstance(v, tuple) and 1 <= len(v) <= MAX_VALUES and all(map(_scalar, v)),
    ),
    "at_least": ("a number", _number),
    "at_most": ("a number", _number),
    "between": (
        "two numbers, the smaller first",
        lambda v: isinstance(v, tuple) and len(v) == 2 and all(map(_number, v)) and v[0] <= v[1],
    ),
    "known": ("no value", lambda v: v is None),
}


def _children(rules: Any) -> tuple[Rule, ...]:
    found = tuple(rules) if isinstance(rules, list) else rules
    fits = isinstance(found, tuple) and found and all(isinstance(one, Rule) for one in found)
    _need(bool(fits), "rules", "one rule or more", rules)
    return found


def _need(fits: bool, name: str, wanted: str, got: Any) -> None:
    if not fits:
        raise RuleError(f"{name}: expected {wanted}, got {shown(got)}")


def _name(name: str, value: Any) -> None:
    fits = isinstance(value, str) and 1 <= len(value) <= MAX_NAME
    _need(fits, name, f"text of 1 to {MAX_NAME} characters", value)


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RuleError(f"{name}: expected one of {', '.join(known)}, got {shown(value)}")
