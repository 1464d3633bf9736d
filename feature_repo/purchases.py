"""Weekly purchases: what a user bought and when, one entry per product and day.

This is the log that purchase sequences are read from (One4all 4.1.1), where ``behaviour_weekly``
counts lines and ``habits_weekly`` subjects. A product is told by its categories and text, never by
its id: ids of the same product change over time. Bought several times on one day, it is one entry,
in the window in which the first of them became known. Weeks without a purchase have no row.
"""

from __future__ import annotations

from datetime import datetime

import duckdb
import pyarrow as pa

from feature_repo.schema import PURCHASES_WEEKLY
from feature_repo.transforms import DAY_US, as_timestamp, micros, window_end


def purchases_weekly(con: duckdb.DuckDBPyConnection, anchor: datetime) -> pa.Table:
    """One row per user and week with purchases, oldest first within the week.

    Returns:
        Table of ``schema.PURCHASES_WEEKLY``, sorted by window end and user.
    """
    at = {"anchor": micros(anchor)}
    table = con.sql(
        f"""WITH first AS (  -- one that becomes known later must not rewrite a window
            SELECT user_id, item_id, min(seen) AS seen,
                   arg_min(epoch_us(timestamp), (seen, epoch_us(timestamp))) AS bought_at
            FROM known_events WHERE source = 'bill' AND seen < $anchor
            GROUP BY user_id, item_id, epoch_us(timestamp) // {DAY_US}),
        named AS (
            SELECT first.*,
                   to_json({{'text': text, 'categories': categories}})::VARCHAR AS product
            FROM first JOIN items USING (item_id))
        SELECT user_id, {as_timestamp("window_end")} AS event_timestamp,
               {as_timestamp("$anchor")} AS created,
               list(product ORDER BY bought_at, product) AS products,
               list(bought_at ORDER BY bought_at, product) AS bought_at
        FROM (SELECT *, {window_end("seen")} AS window_end FROM named)
        GROUP BY user_id, window_end ORDER BY window_end, user_id""",
        params=at,
    ).to_arrow_table()
    return table.cast(PURCHASES_WEEKLY)
