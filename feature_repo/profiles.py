"""Weekly profile snapshots: what is known of a user at the end of each window, as table columns.

String columns are categories, double columns are continuous. Two families:

- *descriptive*: main store, department, payment channel, part of day, price and brand tier, and
  the columns that the source brings itself (age, plan, ...);
- *aggregates*: recency, frequency and spend over 4, 12 and 26 weeks, and their bins. They are made
  by hand, so ``schema.AGGREGATE_PREFIX`` marks them and a training stage can leave them out.

Bins are fixed (powers of two, thresholds), never fitted, so that no later row can move them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from feature_repo.schema import TIMESTAMP
from feature_repo.transforms import WEEK_US, Queries, as_timestamp, micros, weekly, window_end

PROFILE_PREFIX = "profile_"

_MAIN_WEEKS = 12
_SPANS = (4, 12, 26)
_SHORT_SPANS = (1, 2, 8)  # of baskets and spend only: who is slowing down shows in weeks

_KNOWN = "greatest(epoch_us(timestamp), epoch_us(known_at))"

_MAIN_OF = {
    "store": "place",
    "department": "categories[1]",
    "channel": "channel",
    "daypart": "CASE ((seen // 3600000000) % 24) // 6 WHEN 0 THEN 'night' WHEN 1 THEN 'morning' "
    "WHEN 2 THEN 'afternoon' ELSE 'evening' END",
}

_SUMMED = ("baskets", "spend", "units", "discount", "lines", "private_lines", "coupons", "clicks",
           "mini_programs", "exposures", "redemptions")  # fmt: skip


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
    columns = _own_columns(own if own is not None else _known_columns(con, anchor))
    join = ""
    if columns:
        join = "ASOF LEFT JOIN own o ON r.user_id = o.user_id AND r.window_end > o.seen"
    query = f"""{_WEEK_TOTALS}, {_EXPOSURE_TOTALS}, {_ROLLING}, {_MAINS}, {_OWN}
        SELECT r.user_id, {as_timestamp("r.window_end")} AS event_timestamp,
            {as_timestamp("$anchor")} AS created,
            {", ".join([_DESCRIPTIVE, *columns, _AGGREGATES])}
        FROM rolling r LEFT JOIN mains m USING (user_id, window_end) {join}
        ORDER BY r.window_end, r.user_id"""
    return _normalised(weekly(con, query, anchor))


def _known_columns(con: Queries, anchor: datetime) -> OwnColumns:
    """What the profiles say of anybody before ``anchor``."""
    return {
        kind: [row[0] for row in con.execute(
            f"SELECT DISTINCT unnest(map_keys({kind})) AS k FROM profiles "
            f"WHERE {_KNOWN} < $anchor ORDER BY k", {"anchor": micros(anchor)}).fetchall()]
        for kind in ("categorical", "continuous")
    }  # fmt: skip


def _own_columns(names: OwnColumns) -> list[str]:
    """SQL: the source's own profile columns, of the latest snapshot known by the window's end."""
    return [
        f"o.{kind}[{_literal(name)}] AS {_identifier(PROFILE_PREFIX + name)}"
        for kind, keys in names.items()
        for name in keys
    ]


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


def _log_bin(value: str) -> str:
    """SQL: power-of-two bin as text; null and zero have bins of their own."""
    return (
        f"CASE WHEN {value} IS NULL THEN NULL WHEN {value} <= 0 THEN '0' "
        f"ELSE '2^' || floor(log2({value}))::INT END"
    )


def _spans(name: str) -> tuple[int, ...]:
    return (*_SHORT_SPANS, *_SPANS) if name in ("baskets", "spend") else _SPANS


_DESCRIPTIVE = f"""main_store, top_department, main_channel, main_daypart,
{_log_bin("2 * spend_26w / nullif(units_26w, 0)")} AS price_tier,
CASE WHEN lines_26w > 0 THEN floor(5 * least(private_lines_26w / lines_26w, 0.999))::INT || '/5'
     END AS brand_tier"""

_AGGREGATES = f"""recency_days AS agg_recency_days, tenure_days AS agg_tenure_days,
{
    ", ".join(
        f"{name}_{span}w AS agg_{name}_{span}w"
        for name in _SUMMED
        for span in _spans(name)
        if name not in ("units", "lines", "private_lines")
    )
},
spend_26w / nullif(baskets_26w, 0) AS agg_basket_value,
discount_26w / nullif(spend_26w + discount_26w, 0) AS agg_discount_share,
spend_4w / nullif(spend_12w, 0) AS agg_spend_trend,
spend_4w / nullif(spend_8w - spend_4w, 0) AS agg_spend_change,
recency_days * baskets_26w / least(tenure_days, 182) AS agg_overdue,
CASE WHEN recency_days < 7 THEN 'this week' WHEN recency_days < 14 THEN 'last week'
     WHEN recency_days < 28 THEN 'this month' WHEN recency_days < 56 THEN 'last month'
     ELSE 'long ago' END AS agg_recency_bin,
{_log_bin("baskets_12w")} AS agg_frequency_bin, {_log_bin("spend_12w")} AS agg_spend_bin"""

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

_SUMS = ",\n".join(
    f"sum(coalesce({name}, 0)) OVER (PARTITION BY user_id ORDER BY window_end "
    f"ROWS {span - 1} PRECEDING)::DOUBLE AS {name}_{span}w"
    for name in _SUMMED
    for span in _spans(name)
)

_ROLLING = f"""rolling AS (  -- sums over the last windows of the dense grid
    SELECT user_id, window_end,
           (window_end - max(last_at) OVER w) / {WEEK_US / 7} AS recency_days,
           (window_end - min(first_at) OVER w) / {WEEK_US / 7} AS tenure_days, {_SUMS}
    FROM dense LEFT JOIN week_totals USING (user_id, window_end)
               LEFT JOIN exposure_totals USING (user_id, window_end)
    WINDOW w AS (PARTITION BY user_id ORDER BY window_end))"""

_MAINS = f"""week_values AS (
    SELECT user_id, window_end, name, value, count(*) AS n
    FROM (SELECT user_id, {window_end("seen")} AS window_end,
                 unnest({list(_MAIN_OF)}) AS name, unnest([{", ".join(_MAIN_OF.values())}]) AS value
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
    SELECT user_id, window_end,
           arg_min(value, (-n, value)) FILTER (name = 'store') AS main_store,
           arg_min(value, (-n, value)) FILTER (name = 'department') AS top_department,
           arg_min(value, (-n, value)) FILTER (name = 'channel') AS main_channel,
           arg_min(value, (-n, value)) FILTER (name = 'daypart') AS main_daypart
    FROM counted GROUP BY ALL)"""

_OWN = f"""own AS (
    SELECT user_id, {_KNOWN} AS seen, categorical, continuous
    FROM profiles WHERE {_KNOWN} < $anchor
    QUALIFY row_number() OVER (PARTITION BY user_id, seen ORDER BY timestamp DESC) = 1)"""
