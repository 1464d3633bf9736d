"""Rules → which rows of a snapshot they leave, by DuckDB over the facts that it carries.

    rules = RuleFilter.open(manifest, users, workspace)
    allowed = rules.allowed(Not(Behaviour("bought", "CAT FOOD", days=30)))     # bool [N]

Every value is a bound parameter, and the only names in the SQL are those of registered columns, so
nothing that a user writes is ever read as SQL. Leaves are asked one by one and joined as masks;
a snapshot never changes, so their masks are kept, as bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import ManifestError, NotCarried
from feature_repo.manifest import Manifest
from feature_repo.rules import (
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
    nodes,
)
from feature_repo.settings import Workspace
from feature_repo.vocabulary import Column, Vocabulary, check

Mask = npt.NDArray[np.bool_]
Members = Callable[[str], Iterable[str]]
"""Id of a saved audience → the ids of its members."""

_KEPT_MASKS: Final = 256  # 125 KB each for a million users
_MEMORY: Final = "96MB"  # for DuckDB; beyond it spills

_OPERATORS: Final = {
    "is": "= $value",
    "is_not": "<> $value",
    "in": "IN (SELECT unnest($value))",
    "at_least": ">= $value",
    "at_most": "<= $value",
    "between": "BETWEEN $low AND $high",
    "known": "IS NOT NULL",
}

_ONCE: Final = """
SELECT DISTINCT row FROM read_parquet($path) WHERE subject = $subject AND day < $days
"""
_MEASURED: Final = """
SELECT row, {measure} AS value FROM read_parquet($path)
WHERE subject = $subject AND day < $days GROUP BY row
"""
_SUMS: Final = {"count": "sum(count)", "amount": "coalesce(sum(amount::DECIMAL(18, 4)), 0)"}
_EVER: Final = 1 << 30


class RuleFilter:
    """Answers rules for the N users of one snapshot; safe to share between threads.

    Args:
        users: Arrow array of their ids, row by row.
        place: directory of the three files of ``facts.py``; None if the snapshot carries none.
        name: of the snapshot, for messages.
    """

    def __init__(self, users: pa.Array, place: Path | None, name: str) -> None:
        self._users, self._place, self._name = users, place, name
        self._kept: dict[str, npt.NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, manifest: Manifest, users: pa.Array, workspace: Workspace) -> RuleFilter:
        """The filter of a snapshot; one without facts is refused when it is asked, not here."""
        place = None
        if manifest.facts is not None:
            place = (workspace.root / manifest.facts.behaviour.path).parent
            rows = _num_rows(place / "profiles.parquet")
            if rows != manifest.num_users:
                raise ManifestError(
                    f"{place}/profiles.parquet has {rows} rows, the manifest of {manifest.id} "
                    f"says {manifest.num_users} users; publish the snapshot again"
                )
        return cls(users, place, manifest.id)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What rules may speak of in this snapshot. Raises NotCarried if it carries no facts."""
        place = self._facts()
        profiles = pq.read_schema(place / "profiles.parquet")
        columns = {field.name: self._column(place, field) for field in profiles}
        table = pq.read_table(place / "subjects.parquet")
        subjects: dict[str, set[str]] = {}
        for verb, name in zip(table["verb"].to_pylist(), table["name"].to_pylist(), strict=True):
            subjects.setdefault(verb, set())
            if name:
                subjects[verb].add(name)
        return Vocabulary(columns, {verb: frozenset(names) for verb, names in subjects.items()})

    def allowed(self, rule: Rule, members: Members | None = None) -> Mask:
        """Which of the N rows the rule holds for.

        Args:
            members: looks saved audiences up; without it, a rule about one is refused.

        Raises:
            RuleError: the rule speaks of what the snapshot does not know.
            NotCarried: the snapshot carries no facts, and the rule needs some.
        """
        if any(isinstance(one, Profile | Behaviour | Segment) for one in nodes(rule)):
            check(rule, self.vocabulary)
        return self._mask(rule, members)

    def of_users(self, ids: Iterable[str]) -> Mask:
        """Which rows belong to the users named; others are passed over."""
        wanted = pa.array(list(ids), pa.string())
        found: Mask = pc.is_in(self._users, value_set=wanted).to_numpy(zero_copy_only=False)
        return found

    # --- inside

    def _mask(self, rule: Rule, members: Members | None) -> Mask:
        match rule:
            case All(rules):
                return reduce(np.logical_and, [self._mask(one, members) for one in rules])
            case AnyOf(rules):
                return reduce(np.logical_or, [self._mask(one, members) for one in rules])
            case Not(inner):
                return ~self._mask(inner, members)
            case Users(ids):
                return self.of_users(ids)
            case InAudience(audience):
                if members is None:
                    raise RuleError(f"rules: there are no saved audiences here, got {audience!r}")
                return self.of_users(members(audience))
            case Profile():
                return self._remembered(rule, self._profile)
            case Behaviour():
                return self._remembered(rule, self._behaviour)
        raise RuleError(f"rules: expected a rule, got {rule!r}")

    def _remembered(self, rule: Any, ask: Callable[[Any], Mask]) -> Mask:
        key = canonical(rule)
        if (bits := self._kept.get(key)) is None:
            mask = ask(rule)
            with self._lock:
                while len(self._kept) >= _KEPT_MASKS:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[key] = np.packbits(mask)
            return mask
        return np.unpackbits(bits, count=len(self._users)).view(bool)

    def _profile(self, rule: Profile) -> Mask:
        path = str(self._facts() / "profiles.parquet")
        value = rule.value
        values: dict[str, Any] = {} if rule.op == "known" else {"value": value}
        if isinstance(value, tuple):
            values = {"low": value[0], "high": value[1]} if rule.op == "between" else {}
            values = values or {"value": list(value)}
        sql = (
            "SELECT file_row_number AS row FROM read_parquet($path, file_row_number = true) "
            f"WHERE {_identifier(rule.column)} {_OPERATORS[rule.op]}"
        )
        return self._rows(sql, {"path": path, **values})

    def _behaviour(self, rule: Behaviour) -> Mask:
        subject = self._subjects.get((rule.verb, rule.subject or ""))
        low, high = rule.bounds
        none = low <= 0  # users without any such fact are within the bounds
        if subject is None:
            return np.full(len(self._users), none)
        days = _EVER if rule.days is None else rule.days
        asked = {"path": str(self._facts() / "behaviour.parquet"), "subject": subject, "days": days}
        if rule.measure == "count" and low <= 1 and high in (0, np.inf):
            done = self._rows(_ONCE, asked)
            return ~done if high == 0 else done | none
        found = self._ask(_MEASURED.format(measure=_SUMS[rule.measure]), asked)
        value = found["value"].astype(np.float64)
        fits: Mask = (value >= low) & (value <= high)
        mask = np.full(len(self._users), none)
        mask[found["row"]] = fits
        return mask

    def _rows(self, sql: str, values: dict[str, Any]) -> Mask:
        mask = np.zeros(len(self._users), dtype=bool)
        mask[self._ask(sql, values)["row"]] = True
        return mask

    def _ask(self, sql: str, values: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
        with self._con.cursor() as cursor:
            found: dict[str, npt.NDArray[Any]] = cursor.execute(sql, values).fetchnumpy()
        return {name: np.ma.getdata(column) for name, column in found.items()}

    @cached_property
    def _con(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2})

    @cached_property
    def _subjects(self) -> dict[tuple[str, str], int]:
        table = pq.read_table(self._facts() / "subjects.parquet")
        names = zip(table["verb"].to_pylist(), table["name"].to_pylist(), strict=True)
        return dict(zip(names, table["subject"].to_pylist(), strict=True))

    def _column(self, place: Path, field: pa.Field) -> Column:
        if not pa.types.is_string(field.type):
            return Column(continuous=True)
        path = str(place / "profiles.parquet")
        name = _identifier(field.name)
        sql = f"SELECT DISTINCT {name} AS value FROM read_parquet($path) WHERE {name} IS NOT NULL"
        return Column(continuous=False, values=frozenset(self._ask(sql, {"path": path})["value"]))

    def _facts(self) -> Path:
        if self._place is None:
            raise NotCarried(
                f"rules: snapshot {self._name} carries no facts to check rules against, since it "
                "was built before there were rules; run `python -m ray_jobs.embed` and publish"
            )
        return self._place


def _num_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid) as error:
        raise ManifestError(
            f"{path} cannot be read ({error}); publish the snapshot again"
        ) from error


def _identifier(name: str) -> str:
    """Only for names of registered columns."""
    return '"' + name.replace('"', '""') + '"'
