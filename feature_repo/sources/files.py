"""Own data: Parquet or CSV files, turned into the canonical tables by a mapping file.

    files:mapping.yaml          see docs/bring-your-own-data.md

Per entry of the mapping: read the files, compute the values, drop what ``keep_if`` refuses (it is
counted), then screen. Rows read = good + quarantined + dropped, always.

Items are derived from the good events (``derived_items``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import InputError
from feature_repo.quarantine import Mask, Origin, as_number, as_text, screen, split
from feature_repo.schema import CANONICAL, MAX_TEXT
from feature_repo.sources.derived_items import derive_items
from feature_repo.sources.expressions import evaluate, parse
from feature_repo.sources.mapping import Column, Mapping, ProfileFiles, read_mapping
from feature_repo.sources.raw_files import RawRows, find_files, read_rows
from feature_repo.sources.tables import CanonicalTables, as_maps, collect

Fault = tuple[str, str, Mask]

NAME: Final = "files"
IDS: Final = {"events": "event_id", "searches": "search_id", "exposures": "exposure_id"}
"""Keys that are made from the row's position if the mapping does not name a column."""

ITEM_COLUMNS: Final = ("text", "brand")


def load(path: Path, *, now: datetime, demographics: bool = True) -> CanonicalTables:
    """Read everything that a mapping file names.

    Args:
        path: the mapping file; relative paths in it start in its folder.
        now: the clock.
        demographics: with False the profiles are not read.

    Raises:
        InputError: the mapping, a file, a column or an expression is wrong.
    """
    mapping = read_mapping(path)
    good: dict[str, pa.Table] = {}
    bad: list[pa.Table] = []
    dropped: dict[str, int] = {}
    for table in CANONICAL:
        entries = _entries(mapping, table)
        if not entries or (table == "profiles" and not demographics):
            continue
        places = [f"{path.name}: {table}.{n}" for n in range(len(entries))]
        loaded = [
            _load_entry(table, number, entry, path.parent, places[number])
            for number, entry in enumerate(entries)
        ]
        if any(entry.keep_if for entry in entries):
            dropped[table] = sum(each.dropped for each in loaded)
        fine = []
        for together in _groups(table, entries):
            rows = _concatenate([loaded[number] for number in together])
            result = split(table, rows.values, now=now, origin=rows.origin)
            fine.append(result.good)
            bad += [*rows.malformed, result.quarantine]
        good[table] = pa.concat_tables(fine)
        if table == "events":
            said = rows.values.filter(pa.array(result.kept))
            good[table], items = derive_items(good[table], said)
            good["items"], broken = screen("items", items, now=now)
            bad.append(broken)
    own = mapping.own_columns() if demographics else None
    return collect(good, bad, name=NAME, dropped=dropped, own=own)


def fingerprint(path: Path) -> str:
    """Hash of the mapping's content and of the files' paths, sizes and modification times."""
    mapping = read_mapping(path)
    digest = hashlib.sha256(path.read_bytes())
    for table in CANONICAL:
        for number, entry in enumerate(_entries(mapping, table)):
            where = f"{path.name}: {table}.{number}"
            for file in find_files(path.parent, entry.path, where=where):
                state = file.stat()
                digest.update(f"{file.resolve()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _entries(mapping: Mapping, table: str) -> Sequence[Any]:
    entries: Sequence[Any] = getattr(mapping, table, ())
    return entries


def _groups(table: str, entries: Sequence[Any]) -> list[list[int]]:
    """Numbers of the entries within which a key may come once.

    Profiles of one user and time may stand in several entries, which complete each other; those
    that share a column would contradict each other, so they are as one.
    """
    if table != "profiles":
        return [[*range(len(entries))]]
    groups: list[tuple[set[str], list[int]]] = []
    for number, entry in enumerate(entries):
        names, numbers = {*entry.categorical, *entry.continuous}, [number]
        for group in [each for each in groups if each[0] & names]:
            groups.remove(group)
            names, numbers = names | group[0], group[1] + numbers
        groups.append((names, numbers))
    return [numbers for _, numbers in groups]


@dataclass(frozen=True)
class _Rows:
    """Rows with canonical column names, not yet screened; [num rows] everything."""

    values: pa.Table
    origin: Origin
    malformed: list[pa.Table]
    dropped: int


def _load_entry(table: str, number: int, entry: Any, folder: Path, where: str) -> _Rows:
    """Read one entry's files and compute its values; drop what its ``keep_if`` refuses."""
    single = {
        name: value
        for name in type(entry).model_fields
        if isinstance(value := getattr(entry, name), Column)
    }
    several: tuple[Column, ...] = getattr(entry, "categories", ())
    profile = (*getattr(entry, "categorical", ()), *getattr(entry, "continuous", ()))
    columns = [*single.values(), *several]
    sqls = {f"{where}.{name}": value.sql for name, value in single.items() if value.sql}
    sqls |= {f"{where}.categories.{n}": c.sql for n, c in enumerate(several) if c.sql}
    if entry.keep_if:
        sqls[f"{where}.keep_if"] = entry.keep_if.sql
    references = {name for place, sql in sqls.items() for name in parse(sql, where=place).columns}
    raw = read_rows(
        folder,
        entry.path,
        names={*profile, *(column.name for column in columns if column.name)},
        references=references,
        where=where,
    )
    computed = _Values(raw)
    values = {name: computed.of(value, f"{where}.{name}") for name, value in single.items()}
    values.setdefault("known_at", values["timestamp"])  # other entries may know better
    if table == "events":
        levels = [computed.of(c, f"{where}.categories.{n}") for n, c in enumerate(several)]
        _complete_event(values, entry.source, levels, computed)
    if table in IDS and IDS[table] not in values:
        values[IDS[table]] = _positions(table, number, raw)
    if isinstance(entry, ProfileFiles):
        _complete_profile(values, entry, computed)
    keep = computed.keep(entry.keep_if.sql, f"{where}.keep_if") if entry.keep_if else None
    return _kept_rows(pa.table(values), raw, computed.faults, keep, table)


class _Values:
    """Computes the values of one entry, and collects the faults found on the way."""

    def __init__(self, raw: RawRows) -> None:
        self.raw = raw
        self.faults: list[Fault] = []

    def of(self, column: Column, where: str) -> pa.Array:
        """[num rows] the values of a named column, or of an expression."""
        if column.sql is not None:
            return self.computed(column.sql, where)
        return self.named(column.name or "")

    def computed(self, sql: str, where: str) -> pa.Array:
        """[num rows] an expression's values.

        CSV columns are text. Those that the expression calculates with, or compares with a number,
        are read as numbers; where they hold something else, the row is at fault.
        """
        table = self.raw.columns
        numbers = parse(sql, where=where).numbers if self.raw.is_csv else ()
        for index, name in enumerate(table.column_names):
            if name.lower() in numbers:
                table = table.set_column(index, name, self.number(name))
        return evaluate(sql, table, where=where)

    def named(self, name: str) -> pa.Array:
        return self.raw.columns.column(name).combine_chunks()

    def keep(self, sql: str, where: str) -> Mask:
        """[num rows] whether to keep the row; faulty ones are kept, for the quarantine."""
        answer = self.computed(sql, where)
        if not pa.types.is_boolean(answer.type):
            raise InputError(f"{where}: expected true or false, got {answer.type} from {sql!r}")
        keep: Mask = answer.fill_null(False).to_numpy(zero_copy_only=False).copy()
        for _, _, bad in self.faults:
            keep |= bad
        return keep

    def number(self, name: str) -> pa.Array:
        """[num rows] a named column as numbers; where it holds something else is a fault."""
        given = self.named(name)
        number = as_number(given)
        self._fault(name, "not a number", pc.and_(pc.is_valid(given), pc.is_null(number)))
        return number

    def text(self, name: str, column: pa.Array) -> pa.Array:
        """[num rows] text, blank ones null; where it is over-long is a fault."""
        text = as_text(name, column)
        blank = pc.equal(pc.utf8_trim_whitespace(text), "")
        too_long = pc.greater(pc.utf8_length(text), MAX_TEXT)
        self._fault(name, f"longer than {MAX_TEXT} characters", too_long)
        return pc.if_else(pc.fill_null(blank, False), pa.scalar(None, pa.string()), text)

    def _fault(self, column: str, reason: str, bad: pa.Array) -> None:
        mask: Mask = bad.fill_null(False).to_numpy(zero_copy_only=False)
        if mask.any():
            self.faults.append((column, reason, mask))


def _complete_event(
    values: dict[str, pa.Array], source: str, levels: list[pa.Array], computed: _Values
) -> None:
    """Add what the item is derived from; without an id of its own, the text is its id."""
    count = computed.raw.columns.num_rows
    for name in ITEM_COLUMNS:
        given = values.get(name, pa.nulls(count, pa.string()))
        values[name] = computed.text(name, given)
    values.setdefault("item_id", values["text"])
    values["categories"] = _lists([computed.text("categories", level) for level in levels], count)
    values["source"] = pa.repeat(pa.scalar(source), count)


def _complete_profile(values: dict[str, pa.Array], entry: ProfileFiles, computed: _Values) -> None:
    count = computed.raw.columns.num_rows
    categorical = {name: as_text(name, computed.named(name)) for name in entry.categorical}
    continuous = {name: computed.number(name) for name in entry.continuous}
    values["categorical"] = as_maps(categorical, count)
    values["continuous"] = as_maps(continuous, count).cast(pa.map_(pa.string(), pa.float64()))


def _lists(levels: list[pa.Array], length: int) -> pa.Array:
    """Levels, coarse to fine, [length] each → [length] lists, each up to its first null."""
    values = pa.concat_arrays([pa.nulls(0, pa.string()), *levels])
    known = pc.is_valid(values).to_numpy(zero_copy_only=False).reshape(len(levels), length)
    known = np.logical_and.accumulate(known, axis=0) if levels else known
    row_major = np.arange(known.size).reshape(known.shape).T[known.T]
    offsets = np.concatenate([[0], known.sum(axis=0).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values.take(pa.array(row_major)))


def _positions(table: str, number: int, raw: RawRows) -> pa.Array:
    """[num rows] keys made of entry, file and row: stable as long as the files are."""
    file, row = (pa.array(part).cast(pa.string()) for part in (raw.file, raw.row))
    return pc.binary_join_element_wise(f"{table}-{number}", file, row, "-")


def _kept_rows(
    values: pa.Table, raw: RawRows, faults: list[Fault], keep: Mask | None, table: str
) -> _Rows:
    rows, records = pa.array(raw.row), raw.records()
    num_dropped = 0
    if keep is not None:
        num_dropped = int((~keep).sum())
        mask = pa.array(keep)
        values, rows, records = values.filter(mask), rows.filter(mask), records.filter(mask)
        faults = [(column, reason, bad[keep]) for column, reason, bad in faults]
    origin = Origin(rows=rows, records=(records,), faults=tuple(faults))
    return _Rows(values, origin, [raw.quarantine(table)], num_dropped)


def _concatenate(parts: list[_Rows]) -> _Rows:
    """All entries of one table; a column whose type differs between them becomes text."""
    tables = [part.values for part in parts]
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = {name for name, kind in kinds.items() if len(kind - {pa.null()}) > 1}
    cast = [
        pa.table({n: as_text(n, table[n]) if n in mixed else table[n] for n in table.column_names})
        for table in tables
    ]
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    faults = [
        (column, reason, _placed(bad, start, starts[-1]))
        for part, start in zip(parts, starts[:-1], strict=True)
        for column, reason, bad in part.origin.faults
    ]
    origin = Origin(
        rows=pa.concat_arrays([part.origin.rows for part in parts]),
        records=tuple(table for part in parts for table in part.origin.records),
        faults=tuple(faults),
    )
    malformed = [table for part in parts for table in part.malformed]
    dropped = sum(part.dropped for part in parts)
    return _Rows(pa.concat_tables(cast, promote_options="default"), origin, malformed, dropped)


def _placed(bad: Mask, start: int, length: int) -> Mask:
    mask = np.zeros(length, bool)
    mask[start : start + len(bad)] = bad
    return mask
