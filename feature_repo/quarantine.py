"""Screen a raw table against its canonical schema: good rows proceed, bad rows are set aside.

A row that breaks the contract is never dropped silently and never stops a load. It goes to the
quarantine table with the column at fault, the reason, and the whole row as JSON, so that somebody
can count, read and repair it. For every table: rows in = good rows + quarantined rows.

A row is listed once, with the first reason found; reasons are looked for in a fixed order, and
duplicates only among rows that are otherwise good (a broken row must not push out a sound one).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import InputError
from feature_repo.records import json_records
from feature_repo.schema import (
    CANONICAL,
    EVENT_SOURCES,
    KEYS,
    MAX_NUMBER,
    MAX_TEXT,
    MAX_USER_ID,
    QUARANTINE,
    TIMESTAMP,
)

Mask = np.ndarray[Any, np.dtype[np.bool_]]
"""[num rows] true where a row is bad."""

EARLIEST: Final = datetime(1900, 1, 1, tzinfo=UTC)
"""Earlier timestamps are placeholders ("0001-01-01", "-infinity"), not history."""

ZERO: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""A missing time, counted in seconds from 1970, in what happens at a moment: one such event would
ask for a row per user and week since then. A profile may well be valid from there on."""

HAPPENINGS: Final = ("events", "searches", "exposures")
TIME_COLUMNS: Final = ("timestamp", "known_at")
_EXACT: Final = 2.0**53  # up to here floats hold every whole number
NEVER_NEGATIVE: Final = ("quantity", "amount", "discount")


@dataclass(frozen=True)
class Origin:
    """What a source knows of its raw rows beyond their canonical columns; [num rows] each."""

    rows: pa.Array | None = None
    """int64 position in the raw input; None: the position in the table."""
    records: tuple[pa.Table, ...] = ()
    """The rows as they came, for the JSON records: tables that follow one another. Empty: the
    table itself."""
    faults: tuple[tuple[str, str, Mask], ...] = ()
    """(column, reason, where) of faults that the source has found already."""


def screen(
    name: str,
    table: pa.Table,
    *,
    now: datetime,
    items: pa.Table | None = None,
    origin: Origin | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Split raw rows into good ones, in the canonical schema, and quarantined ones.

    Args:
        name: canonical table name, a key of ``schema.CANONICAL``.
        table: raw rows. Columns need the canonical names, not the canonical types: ids may be
            integers, numbers and timestamps may be text. Optional columns may be absent,
            ``known_at`` defaults to ``timestamp``. Unknown columns appear in the JSON records only.
        now: the clock, with a time zone. Later timestamps are in the future and quarantined.
        items: the good items; events that name none of them are quarantined. None: not checked.
        origin: where the rows come from, if the table does not say it all.

    Returns:
        (good, quarantine), both in input order.

    Raises:
        InputError: unknown table name, a required column is absent, or ``now`` has no time zone.
    """
    result = split(name, table, now=now, items=items, origin=origin)
    return result.good, result.quarantine


@dataclass(frozen=True)
class Split:
    """A screened table; see ``screen``."""

    good: pa.Table
    quarantine: pa.Table
    kept: Mask
    """[num rows] which of the raw rows are good."""


def split(
    name: str,
    table: pa.Table,
    *,
    now: datetime,
    items: pa.Table | None = None,
    origin: Origin | None = None,
) -> Split:
    """Like ``screen``, for callers who also want to know which rows were kept."""
    origin = origin or Origin()
    screening = _Screening(name, table, now)
    for column, reason, bad in origin.faults:
        screening.mark(column, reason, bad)
    screening.check_keys_and_texts()
    screening.check_times()
    screening.check_numbers()
    if name == "events":
        screening.check_one_of("source", pa.array(EVENT_SOURCES), "unknown event source")
        if items is not None:
            known = items.column("item_id").combine_chunks()
            screening.check_one_of("item_id", known, "unknown item")
    screening.check_duplicates()
    return Split(screening.good(), screening.quarantined(origin), screening.fault < 0)


def empty_quarantine() -> pa.Table:
    """A quarantine table without rows."""
    return QUARANTINE.empty_table()


class _Screening:
    """One table being screened: its parsed columns, and the first fault found in each row."""

    def __init__(self, name: str, table: pa.Table, now: datetime) -> None:
        if name not in CANONICAL:
            raise InputError(f"table: expected one of {sorted(CANONICAL)}, got {name!r}")
        if now.tzinfo is None:
            raise InputError(f"now: expected a datetime with a time zone, got {now!r}; add tzinfo")
        self.name, self.raw, self.now = name, table, now
        self.schema = CANONICAL[name]
        self.columns = {field.name: self._raw_column(field) for field in self.schema}
        self.fault = np.full(table.num_rows, -1, np.int16)  # index into self.faults, -1 = good
        self.faults: list[tuple[str, str]] = []  # (column, reason)

    def _raw_column(self, field: pa.Field) -> pa.Array:
        source = field.name
        if source == "known_at" and source not in self.raw.column_names:
            source = "timestamp"
        if source in self.raw.column_names:
            column = self.raw.column(source).combine_chunks()
            return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if field.nullable:
            return pa.nulls(self.raw.num_rows, field.type)
        raise InputError(
            f"{self.name}: required column {field.name!r} is absent; "
            f"the columns present are {self.raw.column_names}"
        )

    def mark(self, column: str, reason: str, bad: pa.Array | Mask) -> None:
        """Fault the rows where ``bad`` [num rows] is true, unless they already carry a fault."""
        mask = bad if isinstance(bad, np.ndarray) else _to_numpy(bad)
        mask = mask & (self.fault < 0)
        if mask.any():
            self.fault[mask] = len(self.faults)
            self.faults.append((column, reason))

    def check_keys_and_texts(self) -> None:
        """Text columns: cast to string, required ones present, none over-long."""
        for field in self.schema:
            if pa.types.is_string(field.type):
                column = self.columns[field.name] = as_text(field.name, self.columns[field.name])
                self._check_text(field, column)
            elif pa.types.is_list(field.type) or pa.types.is_map(field.type):
                self._check_nested(field)

    def _check_text(self, field: pa.Field, column: pa.Array) -> None:
        if not field.nullable:
            self.mark(field.name, "null", pc.is_null(column))
            self.mark(field.name, "empty", pc.equal(pc.utf8_trim_whitespace(column), ""))
        limit = MAX_USER_ID if field.name == "user_id" else MAX_TEXT
        too_long = pc.greater(pc.utf8_length(column), limit)
        self.mark(field.name, f"longer than {limit} characters", too_long)
        if field.name == "user_id":
            too_long = pc.greater(pc.binary_length(column), 2 * limit)
            self.mark(field.name, f"longer than {2 * limit} bytes", too_long)

    def _check_nested(self, field: pa.Field) -> None:
        column = self.columns[field.name] = self.columns[field.name].cast(field.type)
        self.mark(field.name, "null", pc.is_null(column))
        owners, leaves = _leaves(column)
        for leaf in leaves:
            if pa.types.is_string(leaf.type):
                self._mark_owners(field.name, "null or empty entry", owners, _blank(leaf))
                too_long = pc.greater(pc.utf8_length(leaf), MAX_TEXT)
                reason = f"longer than {MAX_TEXT} characters"
                self._mark_owners(field.name, reason, owners, too_long)
            else:
                infinite = pc.invert(pc.is_finite(leaf).fill_null(False))
                self._mark_owners(field.name, "not a finite number", owners, infinite)

    def _mark_owners(
        self, column: str, reason: str, owners: np.ndarray[Any, Any], bad: pa.Array
    ) -> None:
        mask = np.zeros(self.raw.num_rows, bool)
        mask[owners[_to_numpy(bad)]] = True
        self.mark(column, reason, mask)

    def check_times(self) -> None:
        """``timestamp`` and ``known_at``: readable, after EARLIEST, not ZERO, not in the future."""
        for column in TIME_COLUMNS:
            if column not in self.columns:
                continue
            raw = self.columns[column]
            parsed = self.columns[column] = _as_time(raw)
            self.mark(column, "null", pc.is_null(raw))
            self.mark(column, "unparsable timestamp", pc.is_null(parsed))
            earliest, zero, now = (pa.scalar(t, TIMESTAMP) for t in (EARLIEST, ZERO, self.now))
            self.mark(column, f"before {EARLIEST:%Y-%m-%d}", pc.less(parsed, earliest))
            if self.name in HAPPENINGS:
                self.mark(column, "timestamp 0", pc.equal(parsed, zero))
            self.mark(column, "in the future", pc.greater(parsed, now))

    def check_numbers(self) -> None:
        """Float columns: readable, finite, not too large, not negative where that cannot be."""
        for field in self.schema:
            if not pa.types.is_floating(field.type):
                continue
            raw = self.columns[field.name]
            number = self.columns[field.name] = as_number(raw)
            self.mark(field.name, "not a number", pc.and_(pc.is_null(number), pc.is_valid(raw)))
            self.mark(field.name, "not a finite number", pc.invert(pc.is_finite(number)))
            too_large = pc.greater(pc.abs(number), MAX_NUMBER)
            self.mark(field.name, f"larger than {MAX_NUMBER:,.0f}", too_large)
            if field.name in NEVER_NEGATIVE:
                self.mark(field.name, "negative", pc.less(number, 0.0))

    def check_one_of(self, column: str, allowed: pa.Array, reason: str) -> None:
        inside = pc.is_in(self.columns[column], value_set=allowed, skip_nulls=True)
        self.mark(column, reason, pc.invert(inside))

    def check_duplicates(self) -> None:
        """Of good rows with one key the first stays; the later ones are faulted."""
        keys = KEYS[self.name]
        good = np.flatnonzero(self.fault < 0)
        columns = [self.columns[key].take(pa.array(good)) for key in keys]
        mask = np.zeros(self.raw.num_rows, bool)
        mask[good[~_first_of_each(columns)]] = True
        self.mark("+".join(keys), "duplicate key", mask)

    def good(self) -> pa.Table:
        arrays = [self.columns[field.name] for field in self.schema]
        table = pa.table(arrays, names=self.schema.names)
        if self.faults:
            table = table.filter(pa.array(self.fault < 0))
        return table.cast(self.schema)

    def quarantined(self, origin: Origin) -> pa.Table:
        bad = np.flatnonzero(self.fault >= 0)
        if not len(bad):
            return empty_quarantine()
        chosen = pa.array(bad)
        faults = [self.faults[index] for index in self.fault[bad]]
        columns = {
            "table": pa.array([self.name] * len(bad)),
            "row": chosen if origin.rows is None else origin.rows.take(chosen),
            "column": pa.array([column for column, _ in faults]),
            "reason": pa.array([reason for _, reason in faults]),
            "record": pa.array(json_records(origin.records or (self.raw,), bad)),
        }
        return pa.table(columns).cast(QUARANTINE)


def _to_numpy(mask: pa.Array) -> Mask:
    """[n] boolean Arrow array → numpy; null (nothing to compare) counts as not bad."""
    filled: Mask = mask.fill_null(False).to_numpy(zero_copy_only=False)
    return filled


def _blank(texts: pa.Array) -> pa.Array:
    return pc.or_kleene(pc.is_null(texts), pc.equal(pc.utf8_trim_whitespace(texts), ""))


def as_text(name: str, column: pa.Array) -> pa.Array:
    """[n] text or numbers → strings; ``name`` is for the message.

    Whole numbers are written as such: tables with gaps keep ids as floats, and 123456789012.0 must
    not become "1.23456789012e+11". What is not a number is null.
    """
    try:
        if pa.types.is_floating(column.type):
            return _float_as_text(column)
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"{name}: expected text or integers, got {column.type}") from error


def _float_as_text(column: pa.Array) -> pa.Array:
    number = column.cast(pa.float64())
    whole = pc.and_(pc.equal(number, pc.floor(number)), pc.less(pc.abs(number), _EXACT))
    digits = pc.if_else(whole, number, None).cast(pa.int64()).cast(pa.string())
    text = pc.if_else(pc.is_nan(number), pa.scalar(None, pa.string()), column.cast(pa.string()))
    return pc.coalesce(digits, text)


def as_number(column: pa.Array) -> pa.Array:
    """[n] anything → float64; text that is no number becomes null."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _try_cast(column, "DOUBLE").cast(pa.float64())
    return column.cast(pa.float64(), safe=False)


def _as_time(column: pa.Array) -> pa.Array:
    """[n] anything → UTC microseconds; naive times are UTC; what is no time becomes null."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", tz=kind.tz), safe=False).cast(TIMESTAMP)
    if pa.types.is_date(kind):
        return column.cast(pa.timestamp("us")).cast(TIMESTAMP)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _try_cast(pc.utf8_trim_whitespace(column), "TIMESTAMPTZ").cast(TIMESTAMP)
    return pa.nulls(len(column), TIMESTAMP)


def _try_cast(column: pa.Array, kind: str) -> pa.Array:
    """Cast text in DuckDB, which makes unreadable values null where Arrow would raise."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("texts", pa.table({"row": np.arange(len(column)), "text": column}))
        query = f"SELECT try_cast(text AS {kind}) AS value FROM texts ORDER BY row"
        return connection.sql(query).to_arrow_table().column("value").combine_chunks()


def _leaves(column: pa.Array) -> tuple[np.ndarray[Any, Any], list[pa.Array]]:
    """A list or map column → ([num leaves] owning row, leaf arrays: values, or keys and values)."""
    lists = column
    if pa.types.is_map(column.type):
        entry = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
        lists = column.cast(pa.list_(entry))
    owners = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    flat = pc.list_flatten(lists)
    leaves = flat.flatten() if pa.types.is_struct(flat.type) else [flat]
    return owners, leaves


def _first_of_each(columns: list[pa.Array]) -> Mask:
    """[n] key columns without nulls → [n] true where the key occurs for the first time."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        encoded = pa.array(column).dictionary_encode()
        codes = codes * max(len(encoded.dictionary), 1) + encoded.indices.to_numpy()
    if len(columns) > 1:
        codes = pa.array(codes).dictionary_encode().indices.to_numpy()
    # Codes are handed out in order of first appearance, so a key is new where the maximum rises.
    before = np.maximum.accumulate(np.concatenate([[-1], codes]))[:-1]
    first: Mask = codes > before
    return first
