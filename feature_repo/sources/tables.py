"""What every source returns: the six canonical tables, and what did not make it into them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.quarantine import empty_quarantine, screen
from feature_repo.schema import CANONICAL


@dataclass(frozen=True)
class CanonicalTables:
    """The canonical tables of one source, screened.

    Every table has its schema of ``schema.CANONICAL``; an absent modality is a table without rows.
    """

    events: pa.Table
    items: pa.Table
    profiles: pa.Table
    searches: pa.Table
    exposures: pa.Table
    segments: pa.Table
    quarantine: pa.Table
    """Rows that break the schema, with reason and JSON record."""
    dropped: dict[str, int]
    """Rows left out on the mapping author's order (``keep_if``), per canonical table."""
    synthetic: bool
    name: str
    own: dict[str, list[str]] | None = None
    """Profile columns by kind, ``categorical`` and ``continuous``, if they are declared; else they
    are those that turn up. Declared ones are columns before anything is known of them."""


def empty(name: str) -> pa.Table:
    """The canonical table ``name`` without rows."""
    return CANONICAL[name].empty_table()


def assemble(
    raw: dict[str, pa.Table], *, name: str, now: datetime, synthetic: bool = False
) -> CanonicalTables:
    """Screen the raw tables of a source and put them together; tables left out are empty.

    Args:
        raw: canonical table name → raw rows, see ``quarantine.screen``.
        name: the source's name, e.g. ``"complete-journey"``.
        now: the clock.
        synthetic: whether the data are made up.
    """
    good: dict[str, pa.Table] = {}
    bad = []
    for table in ("items", *(other for other in CANONICAL if other != "items")):
        if table in raw:
            items = good["items"] if table == "events" else None
            good[table], quarantined = screen(table, raw[table], now=now, items=items)
            bad.append(quarantined)
    return collect(good, bad, name=name, synthetic=synthetic)


def collect(
    good: dict[str, pa.Table],
    bad: list[pa.Table],
    *,
    name: str,
    synthetic: bool = False,
    dropped: dict[str, int] | None = None,
    own: dict[str, list[str]] | None = None,
) -> CanonicalTables:
    """Put screened tables together; tables left out are empty."""
    tables = {table: good.get(table, empty(table)) for table in CANONICAL}
    quarantine = pa.concat_tables([empty_quarantine(), *bad])
    return CanonicalTables(
        **tables,
        quarantine=quarantine,
        dropped=dropped or {},
        synthetic=synthetic,
        name=name,
        own=own,
    )


def as_maps(columns: dict[str, pa.Array], length: int) -> pa.Array:
    """Columns of [length] values of one type → [length] maps from column name to value.

    What is null or blank is unknown, so it is left out of the map.
    """
    kind = next((column.type for column in columns.values()), pa.string())
    values = pa.concat_arrays([pa.nulls(0, kind), *columns.values()])
    known = pc.is_valid(values)
    if pa.types.is_string(kind):
        known = pc.and_kleene(known, pc.not_equal(pc.utf8_trim_whitespace(values), ""))
    kept = known.to_numpy(zero_copy_only=False).reshape(len(columns), length)
    row_major = np.arange(kept.size).reshape(kept.shape).T[kept.T]
    keys = pa.array(list(columns), pa.string()).take(pa.array(row_major // max(length, 1)))
    offsets = np.concatenate([[0], kept.sum(axis=0).cumsum()]).astype(np.int32)
    return pa.MapArray.from_arrays(offsets, keys, values.take(pa.array(row_major)))
