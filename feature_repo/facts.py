"""The facts that a snapshot carries, so that hard rules mean the same for as long as it is kept.

Written when a snapshot is staged, from what was known strictly before its ``as_of``:

    facts/profiles.parquet    row n: the profile of the n-th user, as of as_of
    facts/subjects.parquet    subject (number), verb, name ("" = anything at all), num_users
    facts/behaviour.parquet   subject, day, row, count, amount; sorted by the first three

``day`` counts back from ``as_of`` in steps of 24 hours, from 0, so "in the last 30 days" is
``day < 30``, exactly. ``count`` is of distinct baskets within that day (of events where there are
no baskets). ``row`` is the user's row in every matrix. Sorting by subject lets a rule read the few
row groups of its own subject out of any number of facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import durable
from feature_repo.errors import InputError
from feature_repo.manifest import FactsEntry, FileEntry
from feature_repo.transforms import DAY_US, micros

_GROUP_ROWS: Final = 65_536
_KEYS: Final = ("user_id", "event_timestamp", "created")

_SUBJECTS = """
CREATE OR REPLACE TEMP TABLE item_subjects AS
SELECT DISTINCT item_id, unnest(categories) AS subject FROM items
UNION ALL SELECT item_id, text FROM items WHERE len(categories) = 0
"""

# The same basket in one day counts once for each subject, and once for anything ('').
_DONE = f"""
CREATE OR REPLACE TEMP TABLE done AS
WITH events AS (
    SELECT user_id, item_id, channel, amount, coalesce(basket_id, event_id) AS basket,
           ($as_of - epoch_us(timestamp) - 1) // {DAY_US} AS day,
           CASE source WHEN 'bill' THEN 'bought' WHEN 'click' THEN 'clicked'
                ELSE 'browsed' END AS verb
    FROM known_events WHERE seen < $as_of),
counted AS (
    SELECT user_id, verb, subject AS name, day, count(DISTINCT basket) AS count,
           sum(amount::DECIMAL(18, 4)) AS amount
    FROM events JOIN item_subjects USING (item_id) GROUP BY ALL
    UNION ALL
    SELECT user_id, verb, '', day, count(DISTINCT basket), sum(amount::DECIMAL(18, 4))
    FROM events GROUP BY ALL
    UNION ALL
    SELECT user_id, 'paid', name, day, count(DISTINCT basket), sum(amount::DECIMAL(18, 4))
    FROM (SELECT *, unnest(['', channel]) AS name FROM events
          WHERE verb = 'bought' AND channel IS NOT NULL) GROUP BY ALL
    UNION ALL
    SELECT user_id, 'searched', name, day, count(*), NULL
    FROM (SELECT user_id, ($as_of - epoch_us(timestamp) - 1) // {DAY_US} AS day,
                 unnest(['', text]) AS name
          FROM known_searches WHERE seen < $as_of) GROUP BY ALL
    UNION ALL
    SELECT user_id, CASE kind WHEN 'redeemed' THEN 'redeemed' ELSE 'received' END, name, day,
           count(*), NULL
    FROM (SELECT user_id, kind, ($as_of - epoch_us(timestamp) - 1) // {DAY_US} AS day,
                 unnest(['', campaign_id]) AS name
          FROM exposures WHERE greatest(epoch_us(timestamp), epoch_us(known_at)) < $as_of)
    GROUP BY ALL)
SELECT u.row, verb, name, day, count, amount
FROM counted JOIN snapshot_users u USING (user_id)
"""

_NUMBERED = """
CREATE OR REPLACE TEMP TABLE numbered AS
SELECT (row_number() OVER (ORDER BY verb, name) - 1)::INT AS subject, verb, name, num_users
FROM (SELECT verb, name, count(DISTINCT row) AS num_users FROM done GROUP BY ALL)
"""

_BEHAVIOUR = """
SELECT n.subject, d.day::INT AS day, d.row::INT AS row, d.count::INT AS count,
       d.amount::DOUBLE AS amount
FROM done d JOIN numbered n USING (verb, name) ORDER BY n.subject, d.day, d.row
"""


def write_facts(
    con: duckdb.DuckDBPyConnection,
    profiles: pa.Table,
    users: Sequence[str],
    as_of: datetime,
    directory: Path,
    home: str,
) -> FactsEntry:
    """Write the facts of ``users``, in their order, into ``directory``/facts.

    Args:
        con: sees the canonical tables (``transforms.open_tables``).
        profiles: the weekly profile rows at ``as_of``, user_id and features, in any order.
        home: where the directory will be, relative to the workspace, once it is committed.
    """
    place = directory / "facts"
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(_aligned(profiles, users), place / "profiles.parquet", row_group_size=1 << 17)
    con.register("users_arrow", _numbered(users))
    try:
        con.execute("CREATE OR REPLACE TEMP TABLE snapshot_users AS SELECT * FROM users_arrow")
    finally:
        con.unregister("users_arrow")
    con.execute(_SUBJECTS)
    con.execute(_DONE, {"as_of": micros(as_of)})
    con.execute(_NUMBERED)
    subjects = con.sql("SELECT * FROM numbered ORDER BY subject").to_arrow_table()
    pq.write_table(subjects, place / "subjects.parquet")
    write_sorted(con.sql(_BEHAVIOUR), place / "behaviour.parquet")
    return entry_of(place, f"{home}/facts")


def entry_of(place: Path, home: str) -> FactsEntry:
    """The manifest's entry of facts that lie in ``place`` and will lie in ``home``."""

    def file(name: str) -> FileEntry:
        return FileEntry(path=f"{home}/{name}", sha256=durable.sha256(place / name))

    return FactsEntry(
        profiles=file("profiles.parquet"),
        subjects=file("subjects.parquet"),
        behaviour=file("behaviour.parquet"),
    )


def write_sorted(relation: duckdb.DuckDBPyRelation, path: Path) -> None:
    """Write a sorted relation in row groups small enough to be skipped; streams."""
    reader = relation.to_arrow_reader(_GROUP_ROWS)
    with pq.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _numbered(users: Sequence[str]) -> pa.Table:
    rows = pa.array(range(len(users)), pa.int32())
    return pa.table({"user_id": pa.array(users, pa.string()), "row": rows})


def _aligned(profiles: pa.Table, users: Sequence[str]) -> pa.Table:
    """One row per user in their order; what is unknown is null, never NaN."""
    keep = [name for name in profiles.column_names if name not in _KEYS]
    if len(set(profiles["user_id"].to_pylist())) != len(profiles):
        raise InputError("profiles: expected one row per user, got users twice")
    rows = pc.index_in(pa.array(users, pa.string()), value_set=profiles["user_id"])
    table = profiles.select(keep).take(rows)
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table[field.name]
            known = pc.if_else(pc.is_finite(column), column, None)
            table = table.set_column(place, field.name, known)
    return table
