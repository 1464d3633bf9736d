"""Canonical tables → weekly feature rows and future-behaviour facts, as DuckDB SQL.

Pure table → table: every function takes a connection from :func:`open_tables` and returns Arrow.
A window is the week that ends (exclusively) at ``anchor - 7k days``. An event belongs to the
window in which it was *known*: ``greatest(timestamp, known_at)``. So a late row shows up in a
later window, windows are never rewritten, and a row at or after the anchor is never read.

Rows are dense: one per user and window from the user's first window on, empty weeks included,
so that a lookup at a window's end can never fall through to an older week.
A bill whose payment failed bought nothing: it is no known event, for whoever asks.
Money is summed as decimals: a sum of doubles would depend on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from feature_repo.errors import TimeError
from feature_repo.schema import (
    BEHAVIOUR_WEEKLY,
    BILL,
    CANONICAL,
    FACTS,
    FAILED,
    SEARCH_WEEKLY,
    TIMESTAMP,
)

WEEK_US = 7 * 24 * 3600 * 1_000_000
DAY_US = WEEK_US // 7

_LINE = """CASE len(categories) WHEN 0 THEN text WHEN 1 THEN categories[1]
                ELSE categories[-2] || ': ' || categories[-1] END"""

_SETUP = f"""
CREATE OR REPLACE TEMP VIEW known_events AS
    SELECT e.*, greatest(epoch_us(timestamp), epoch_us(known_at)) AS seen FROM events e
    WHERE source <> '{BILL}' OR lower(status) IS DISTINCT FROM '{FAILED}';
CREATE OR REPLACE TEMP VIEW known_searches AS
    SELECT s.*, greatest(epoch_us(timestamp), epoch_us(known_at)) AS seen FROM searches s;
CREATE OR REPLACE TEMP VIEW item_lines AS
    SELECT item_id, {_LINE} AS line, categories, brand FROM items;
"""


class Queries(Protocol):
    """What weekly views ask: a DuckDB connection, or one that plans each statement only once."""

    def sql(self, query: str, *, params: dict[str, int]) -> Any:
        """The statement's rows, as something with ``to_arrow_table()``."""

    def execute(self, query: str, parameters: dict[str, int] = ...) -> Any:
        """Run the statement; its rows come by ``fetchall()``."""


def open_tables(tables: Mapping[str, pa.Table] | Path) -> duckdb.DuckDBPyConnection:
    """A connection that sees the canonical tables, given as Arrow or as a directory of Parquet."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    for name, schema in CANONICAL.items():
        if isinstance(tables, Path):
            con.read_parquet(str(tables / f"{name}.parquet")).create_view(name)
        else:
            con.register(name, tables.get(name, schema.empty_table()))
    con.execute(_SETUP)
    return con


def micros(when: datetime) -> int:
    """Microseconds since the epoch; dates without a zone are UTC."""
    return pa.scalar(when, TIMESTAMP).value  # type: ignore[no-any-return]


def data_span(con: Queries) -> tuple[int, int]:
    """First and last moment (microseconds) at which anything became known."""
    first, last = con.execute(
        "SELECT min(seen), max(seen) FROM (SELECT seen FROM known_events UNION ALL "
        "SELECT seen FROM known_searches)"
    ).fetchall()[0]
    if first is None:
        raise TimeError("the data hold no events and no searches: nothing to build features from")
    return int(first), int(last)


def horizon_known(con: Queries, cutoff: datetime, days: int) -> bool:
    """Whether the data reach into the last day of ``[cutoff, cutoff + days)``.

    That day counts as whole: nobody knows at what hour a shop's last receipt of a day is due.
    """
    return micros(cutoff + timedelta(days=days - 1)) <= data_span(con)[1]


def window_ends(con: Queries, anchor: datetime) -> list[int]:
    """Exclusive ends (microseconds, ascending) of all weekly windows up to ``anchor``.

    Raises:
        TimeError: when the anchor lies before the first data.
    """
    first, last = data_span(con)
    end = micros(anchor)
    if end <= first:
        raise TimeError(
            f"as_of={anchor:%Y-%m-%d} is before the data: expected a date after "
            f"{_day(first)} (the data run from {_day(first)} to {_day(last)})"
        )
    weeks = (end - first - 1) // WEEK_US + 1
    return [end - WEEK_US * k for k in range(weeks - 1, -1, -1)]


def users_before(con: duckdb.DuckDBPyConnection, when: datetime) -> list[str]:
    """Users about whom anything was known strictly before ``when``, sorted."""
    rows = con.execute(
        """SELECT user_id FROM known_events WHERE seen < $t UNION
           SELECT user_id FROM known_searches WHERE seen < $t ORDER BY user_id""",
        {"t": micros(when)},
    ).fetchall()
    return [row[0] for row in rows]


def behaviour_weekly(con: Queries, anchor: datetime) -> pa.Table:
    """One row per user and week: the distinct lines of each event source with their counts.

    Returns:
        Table of ``schema.BEHAVIOUR_WEEKLY``, sorted by window end and user.
    """
    return weekly(con, _BEHAVIOUR, anchor).cast(BEHAVIOUR_WEEKLY)


def search_weekly(con: Queries, anchor: datetime) -> pa.Table:
    """One row per user and week: the distinct search texts and how often each was asked."""
    return weekly(con, _SEARCHES, anchor).cast(SEARCH_WEEKLY)


def weekly(con: Queries, query: str, anchor: datetime) -> pa.Table:
    """The rows of a weekly view, by one statement: DuckDB's planning is most of a small one's time.

    Args:
        query: SQL without its ``WITH``. It may read ``dense``: every (user, window end) from the
            user's first window to ``$anchor``.

    Raises:
        TimeError: when nothing was known before ``anchor``.
    """
    table = con.sql(f"WITH {_DENSE}, {query}", params={"anchor": micros(anchor)}).to_arrow_table()
    if not table.num_rows:
        window_ends(con, anchor)  # raises, and says why there is nothing
    return table


def facts(
    con: duckdb.DuckDBPyConnection,
    cutoffs: Sequence[datetime],
    *,
    horizon_days: int,
    known_before: datetime,
) -> pa.Table:
    """What each user did in ``[cutoff, cutoff + horizon)``: the labels behind future sentences.

    Only rows known strictly before ``known_before`` count. Every level of an item's taxonomy is a
    subject of its own.

    Returns:
        Table of ``schema.FACTS``, sorted by cutoff, user, kind, subject.
    """
    parts = []
    for cutoff in cutoffs:
        start, end = micros(cutoff), micros(cutoff) + horizon_days * DAY_US
        if end > micros(known_before):
            raise TimeError(
                f"cutoff {cutoff:%Y-%m-%d} + {horizon_days} days ends after "
                f"{known_before:%Y-%m-%d}: its future is not known yet"
            )
        parts.append(
            con.sql(
                _FACTS_SQL, params={"start": start, "end": end, "known": micros(known_before)}
            ).to_arrow_table()
        )
    if not parts:
        return FACTS.empty_table()
    return pa.concat_tables(parts).cast(FACTS)


_FACTS_SQL = """
WITH future AS (
    SELECT * FROM known_events
    WHERE epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end AND seen < $known),
subjects AS (
    SELECT item_id, subject, min(level) AS level FROM (  -- a name may stand on two levels
        SELECT item_id, unnest(categories) AS subject, generate_subscripts(categories, 1) AS level
        FROM items WHERE len(categories) > 0)
    GROUP BY item_id, subject
    UNION ALL SELECT item_id, text, 0 FROM items WHERE len(categories) = 0),
done AS (
    SELECT user_id, CASE source WHEN 'bill' THEN 'purchase' WHEN 'click' THEN 'click'
                    ELSE 'browsing' END AS kind,
           subject, min(level)::TINYINT AS level,
           count(DISTINCT coalesce(basket_id, event_id))::FLOAT AS count,
           sum(amount::DECIMAL(18, 4))::DOUBLE AS amount
    FROM future JOIN subjects USING (item_id) GROUP BY ALL
    UNION ALL
    SELECT user_id, 'channel', channel, 0::TINYINT,
           count(DISTINCT coalesce(basket_id, event_id))::FLOAT, sum(amount::DECIMAL(18, 4))::DOUBLE
    FROM future WHERE source = 'bill' AND channel IS NOT NULL GROUP BY ALL
    UNION ALL
    SELECT user_id, 'search', text, 0::TINYINT, count(*)::FLOAT, NULL
    FROM known_searches
    WHERE epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end AND seen < $known
    GROUP BY ALL)
SELECT user_id, make_timestamp($start)::TIMESTAMPTZ AS cutoff, kind, subject, level, count, amount
FROM done ORDER BY user_id, kind, subject
"""


def catalogue(
    con: duckdb.DuckDBPyConnection, facts: pa.Table, *, known_before: datetime
) -> pa.Table:
    """Every distinct subject of ``facts`` with its place in the taxonomy.

    Returns:
        kind, name, level, parent (the name above it in most events known strictly before
        ``known_before``; "" where there is none), count (rows of ``facts``); sorted.
    """
    con.register("facts_arrow", facts)
    table = con.sql(
        """WITH paths AS (
            SELECT categories AS c, count(*) AS n FROM known_events JOIN items USING (item_id)
            WHERE seen < $known AND len(categories) > 1 GROUP BY c),
        steps AS (
            SELECT c[level] AS name, level, c[level - 1] AS parent, sum(n) AS n
            FROM paths, range(2, 100) AS r(level) WHERE level <= len(c) GROUP BY ALL),
        parents AS (
            SELECT name, level, arg_max(parent, (n, parent)) AS parent FROM steps GROUP BY ALL),
        named AS (
            SELECT kind, subject AS name, min(level) AS level, count(*) AS count
            FROM facts_arrow GROUP BY ALL)
        SELECT kind, name, level, coalesce(parent, '') AS parent, count
        FROM named LEFT JOIN parents USING (name, level) ORDER BY kind, level, name""",
        params={"known": micros(known_before)},
    ).to_arrow_table()
    con.unregister("facts_arrow")
    return table


def window_end(seen: str) -> str:
    """SQL: exclusive end of the window, counted back from ``$anchor``, that holds ``seen``."""
    return f"($anchor - (($anchor - {seen} - 1) // {WEEK_US}) * {WEEK_US})"


def as_timestamp(column: str) -> str:
    return f"make_timestamp({column})::TIMESTAMPTZ"


def _day(us: int) -> str:
    return str(pa.scalar(us, TIMESTAMP).as_py().date())


def _filled(column: str) -> str:
    counts = f"{column[:-1]}_counts"
    return f"coalesce({column}, []) AS {column}, coalesce({counts}, []) AS {counts}"


_DENSE = f"""dense AS (
    SELECT user_id, $anchor - {WEEK_US} * unnest(range(weeks)) AS window_end FROM
        (SELECT user_id, ($anchor - min(seen) - 1) // {WEEK_US} + 1 AS weeks FROM
            (SELECT user_id, seen FROM known_events UNION ALL
             SELECT user_id, seen FROM known_searches)
         WHERE seen < $anchor GROUP BY user_id))"""

_COLUMNS = (("bill", "bills"), ("click", "clicks"), ("mini_program", "mini_programs"))
_LISTS = ", ".join(
    f"list(line ORDER BY line) FILTER (source = '{source}') AS {column}, "
    f"list(n ORDER BY line) FILTER (source = '{source}') AS {column[:-1]}_counts"
    for source, column in (
        ("bill", "bills"),
        ("click", "clicks"),
        ("mini_program", "mini_programs"),
    )
)

_BEHAVIOUR = f"""
window_lines AS (
    SELECT user_id, window_end, source, line,
           count(DISTINCT coalesce(basket_id, event_id))::FLOAT AS n
    FROM (SELECT e.*, i.line, {window_end("e.seen")} AS window_end
          FROM known_events e JOIN item_lines i USING (item_id)
          WHERE e.seen < $anchor)
    GROUP BY ALL),
texts AS (SELECT user_id, window_end, {_LISTS} FROM window_lines GROUP BY ALL),
totals AS (
    SELECT user_id, {window_end("seen")} AS window_end, count(*) AS num_events,
           sum(amount::DECIMAL(18, 4))::DOUBLE AS amount
    FROM known_events WHERE seen < $anchor GROUP BY ALL)
SELECT user_id, {as_timestamp("window_end")} AS event_timestamp,
       {as_timestamp("$anchor")} AS created,
       {_filled("bills")}, {_filled("clicks")}, {_filled("mini_programs")},
       coalesce(num_events, 0) AS num_events, coalesce(amount, 0) AS amount
FROM dense LEFT JOIN texts USING (user_id, window_end)
           LEFT JOIN totals USING (user_id, window_end)
ORDER BY window_end, user_id"""

_SEARCHES = f"""
asked AS (
    SELECT user_id, {window_end("seen")} AS window_end, text, count(*)::FLOAT AS n
    FROM known_searches WHERE seen < $anchor GROUP BY ALL),
texts AS (
    SELECT user_id, window_end, list(text ORDER BY text) AS searches,
           list(n ORDER BY text) AS search_counts
    FROM asked GROUP BY ALL)
SELECT user_id, {as_timestamp("window_end")} AS event_timestamp,
       {as_timestamp("$anchor")} AS created,
       coalesce(searches, []) AS searches, coalesce(search_counts, []) AS search_counts
FROM dense LEFT JOIN texts USING (user_id, window_end)
ORDER BY window_end, user_id"""
