"""Weekly profile snapshots: what is known of a user at the end of each window, as table columns.

String columns are categories, double columns are continuous. Two families:

- *descriptive*: main store, department, payment channel, part of day, price and brand tier, and
  the columns that the source brings itself (age, plan, ...), each as it was told last: a row that
  says nothing of a column leaves it as it was;
- *aggregates* (``feature_repo.aggregates``): recency, frequency and spend over 4, 12 and 26 weeks,
  and their bins. They are made by hand, so ``schema.AGGREGATE_PREFIX`` marks them and a training
  stage can leave them out.

Bins are fixed (powers of two, thresholds), never fitted, so that no later row can move them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa

from feature_repo.aggregates import TOTALS, Aggregates
from feature_repo.schema import TIMESTAMP
from feature_repo.transforms import WEEK_US, Queries, as_timestamp, micros, weekly, window_end

PROFILE_PREFIX = "profile_"

_MAIN_WEEKS = 12

_KNOWN = "greatest(epoch_us(timestamp), epoch_us(known_at))"

_MAINS_OF = {
    "main_store": "place",
    "top_department": "categories[1]",
    "main_channel": "channel",
    "main_daypart": "CASE ((seen // 3600000000) % 24) // 6 WHEN 0 THEN 'night' "
    "WHEN 1 THEN 'morning' WHEN 2 THEN 'afternoon' ELSE 'evening' END",
}

OwnColumns = Mapping[str, Sequence[str]]
"""Names of the source's own profile columns by kind, ``categorical`` and ``continuous``."""


def profile_weekly(con: Queries, anchor: datetime, own: OwnColumns | None = None) -> pa.Table:
    """One row per user and week; columns ``user_id, event_timestamp, created`` and the features.

    Args:
        own: the source's own columns that are wanted, null for whom it says nothing; by default all
            that are known of anybody before ``anchor``.

    Returns:
        Table sorted by window end and user.
    """
    own = own if own is not None else _known_columns(con, anchor)
    join = ""
    if any(own.values()):
        join = "ASOF LEFT JOIN own o ON r.user_id = o.user_id AND r.window_end > o.seen"
    query = f"""{_WEEK_TOTALS}, {_EXPOSURE_TOTALS}, {_MAINS}, {_own(own)}
        SELECT r.user_id, {as_timestamp("r.window_end")} AS event_timestamp,
            {as_timestamp("$anchor")} AS created, r.window_end, last_at, first_at,
            {", ".join([*_MAINS_OF, *(f"o.{name}" for name in _own_columns(own)), *_TOTAL_COLUMNS])}
        FROM dense r LEFT JOIN mains USING (user_id, window_end)
            LEFT JOIN week_totals USING (user_id, window_end)
            LEFT JOIN exposure_totals USING (user_id, window_end) {join}
        ORDER BY r.user_id, r.window_end"""
    weeks = weekly(con, query, anchor)
    made = Aggregates(weeks, micros(anchor))
    said = [PROFILE_PREFIX + name for names in own.values() for name in names]
    columns = {name: weeks[name] for name in ("user_id", "event_timestamp", "created", *_MAINS_OF)}
    columns |= made.tiers() | {name: weeks[name] for name in said} | made.columns()
    by_week = np.argsort(weeks["window_end"].to_numpy(), kind="stable")
    table = _normalised(pa.table(columns))
    return table if (np.diff(by_week) == 1).all() else table.take(by_week)


def _known_columns(con: Queries, anchor: datetime) -> OwnColumns:
    """What the profiles say of anybody before ``anchor``."""
    return {
        kind: [row[0] for row in con.execute(
            f"SELECT DISTINCT unnest(map_keys({kind})) AS k FROM profiles "
            f"WHERE {_KNOWN} < $anchor ORDER BY k", {"anchor": micros(anchor)}).fetchall()]
        for kind in ("categorical", "continuous")
    }  # fmt: skip


def _own_columns(names: OwnColumns) -> dict[str, str]:
    """SQL: the source's own profile columns, and where their values are."""
    return {
        _identifier(PROFILE_PREFIX + name): f"{kind}[{_literal(name)}]"
        for kind, keys in names.items()
        for name in keys
    }


def _own(names: OwnColumns) -> str:
    """SQL: what the source says of a user from each moment on at which it said anything.

    Rows of several files may be of one moment: the frame holds them all.
    """
    columns = [
        f"last_value({value} IGNORE NULLS) OVER told AS {name}"
        for name, value in _own_columns(names).items()
    ]
    return f"""own AS (
    SELECT {", ".join(["user_id", "seen", *columns])}
    FROM (SELECT *, {_KNOWN} AS seen FROM profiles WHERE {_KNOWN} < $anchor)
    WINDOW told AS (PARTITION BY user_id ORDER BY seen, timestamp
                    RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    QUALIFY row_number() OVER (PARTITION BY user_id, seen ORDER BY timestamp DESC) = 1)"""


def _normalised(table: pa.Table) -> pa.Table:
    """Strings stay strings, every number becomes double, timestamps microseconds UTC."""
    fields = []
    for field in table.schema:
        if pa.types.is_timestamp(field.type):
            fields.append(pa.field(field.name, TIMESTAMP))
        elif pa.types.is_string(field.type):
            fields.append(pa.field(field.name, pa.string()))
        else:
            fields.append(pa.field(field.name, pa.float64()))
    return table.cast(pa.schema(fields))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


_TOTAL_COLUMNS = [
    f"coalesce({name} * {unit}, 0)::BIGINT AS {name}" for name, unit in TOTALS.items()
]

_WEEK_TOTALS = f"""week_totals AS (
    SELECT user_id, {window_end("seen")} AS window_end,
           count(DISTINCT basket_id) FILTER (source = 'bill') AS baskets,
           sum(amount::DECIMAL(18, 4)) FILTER (source = 'bill') AS spend,
           sum(quantity::DECIMAL(18, 4)) FILTER (source = 'bill') AS units,
           sum(discount::DECIMAL(18, 4)) FILTER (source = 'bill') AS discount,
           count(*) FILTER (source = 'bill') AS lines,
           count(*) FILTER (source = 'bill' AND brand = 'Private') AS private_lines,
           count(*) FILTER (channel = 'coupon') AS coupons,
           count(*) FILTER (source = 'click') AS clicks,
           count(*) FILTER (source = 'mini_program') AS mini_programs,
           max(seen) AS last_at, min(seen) AS first_at
    FROM known_events JOIN item_lines USING (item_id) WHERE seen < $anchor GROUP BY ALL)"""

_EXPOSURE_TOTALS = f"""exposure_totals AS (
    SELECT user_id, {window_end(_KNOWN)} AS window_end,
           count(*) FILTER (kind <> 'redeemed') AS exposures,
           count(*) FILTER (kind = 'redeemed') AS redemptions
    FROM exposures WHERE {_KNOWN} < $anchor GROUP BY ALL)"""

_MAINS = f"""week_values AS (
    SELECT user_id, window_end, name, value, count(*) AS n
    FROM (SELECT user_id, {window_end("seen")} AS window_end,
                 unnest({list(_MAINS_OF)}) AS name, unnest([{
    ", ".join(_MAINS_OF.values())
}]) AS value
          FROM known_events JOIN item_lines USING (item_id)
          WHERE seen < $anchor AND source = 'bill')
    WHERE value IS NOT NULL GROUP BY ALL),
counted AS (
    SELECT d.user_id, d.window_end, v.name, v.value, sum(v.n) AS n
    FROM dense d JOIN week_values v ON v.user_id = d.user_id
         AND v.window_end <= d.window_end
         AND v.window_end > d.window_end - {_MAIN_WEEKS * WEEK_US}
    GROUP BY ALL),
mains AS (  -- ties go to the alphabetically first value, so that a rerun gives the same bytes
    SELECT user_id, window_end, {
    ", ".join(
        f"arg_min(value, (-n, value)) FILTER (name = '{name}') AS {name}" for name in _MAINS_OF
    )
}
    FROM counted GROUP BY ALL)"""
