"""Outcomes: overall behaviour after a cut-off, with a yes and a no.

Facts say what a user did; what a user did not do is then a no. An outcome is not so simple: it is
asked of some users only (who was active before), or needs a threshold over all of them, or a
longer future than is known yet. So each row says yes or no, and a missing row means unknown.

    nothing  no purchase within the horizon                  of who bought in the last 60 days
    a lot    spend within it in the top quarter              of all users with events
    more     spend above 1.3 times that of as many days ago  of who bought in the last 60 days
    coupon   redeemed one within it                          of all users with events, if any did

Where nobody ever buys, a visit stands for a purchase: any click or page. Where nothing has a price,
spending is counted in events.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import duckdb
import pyarrow as pa

from feature_repo.schema import OUTCOMES
from feature_repo.transforms import DAY_US, micros

HORIZONS = (14, 28, 56)
"""Days ahead that outcomes are told for."""

_ACTIVE_DAYS = 60


def outcomes(
    con: duckdb.DuckDBPyConnection, cutoffs: Sequence[datetime], *, known_before: datetime,
    horizons: Sequence[int] = HORIZONS,
) -> pa.Table:  # fmt: skip
    """Yes or no for each user, cut-off, outcome and horizon that is decided by ``known_before``.

    Only rows known strictly before ``known_before`` count. ``horizons`` are days.

    Returns:
        Table of ``schema.OUTCOMES``: cut-offs as given, then by horizon, user and outcome.
    """
    known = micros(known_before)
    parts = [
        con.sql(
            _SQL,
            params={
                "t": micros(cutoff), "end": micros(cutoff) + days * DAY_US,
                "before": micros(cutoff) - days * DAY_US, "known": known, "days": days,
                "active": micros(cutoff) - _ACTIVE_DAYS * DAY_US,
            },
        ).to_arrow_table()
        for cutoff in cutoffs
        for days in horizons
        if micros(cutoff) + days * DAY_US <= known
    ]  # fmt: skip
    return pa.concat_tables(parts).cast(OUTCOMES) if parts else OUTCOMES.empty_table()


_SQL = """
WITH sold AS (
    SELECT count(*) > 0 AS anything, count(*) FILTER (amount > 0) > 0 AS priced
    FROM known_events WHERE source = 'bill' AND seen < $known),
visits AS (
    SELECT e.*, source = 'bill' OR NOT anything AS visit,
           CASE WHEN priced THEN amount::DECIMAL(18, 4) ELSE 1 END AS spent
    FROM known_events e, sold),
users AS (
    SELECT user_id, coalesce(max(seen) FILTER (visit) >= $active, false) AS active
    FROM visits WHERE seen < $t GROUP BY user_id),
spending AS (
    SELECT user_id,
           sum(spent) FILTER (epoch_us(timestamp) >= $t)::DOUBLE AS after,
           sum(spent) FILTER (epoch_us(timestamp) < $t)::DOUBLE AS before,
           count(*) FILTER (epoch_us(timestamp) >= $t) AS events
    FROM visits
    WHERE visit AND epoch_us(timestamp) >= $before AND epoch_us(timestamp) < $end
      AND seen < $known GROUP BY user_id),
redeemed AS (
    SELECT DISTINCT user_id FROM exposures
    WHERE kind = 'redeemed' AND epoch_us(timestamp) >= $t AND epoch_us(timestamp) < $end
      AND greatest(epoch_us(timestamp), epoch_us(known_at)) < $known),
each AS (
    SELECT user_id, active, coalesce(events, 0) = 0 AS nothing,
           coalesce(after, 0) AS after, coalesce(before, 0) AS before,
           r.user_id IS NOT NULL AS coupon
    FROM users LEFT JOIN spending USING (user_id) LEFT JOIN redeemed r USING (user_id)),
told AS (
    SELECT user_id, 'nothing' AS outcome, nothing AS happened FROM each WHERE active
    UNION ALL
    SELECT user_id, 'a lot', after > (SELECT quantile_cont(after, 0.75) FROM each) FROM each
    UNION ALL
    SELECT user_id, 'more', after > 1.3 * before FROM each WHERE active
    UNION ALL
    SELECT user_id, 'coupon', coupon FROM each
    WHERE EXISTS (SELECT * FROM exposures WHERE kind = 'redeemed'
                  AND greatest(epoch_us(timestamp), epoch_us(known_at)) < $known))
SELECT user_id, make_timestamp($t)::TIMESTAMPTZ AS cutoff, outcome, $days::INT AS horizon_days,
       happened
FROM told ORDER BY user_id, outcome
"""
