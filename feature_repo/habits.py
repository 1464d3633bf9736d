"""Weekly habits: which subjects of the taxonomy a user bought, clicked or browsed, how often.

This is the hand-made side of behaviour: recency and frequency of a category can be counted from
these rows, where ``behaviour_weekly`` holds the finest lines as text. Only the two coarsest levels
of a taxonomy are subjects (finer ones are too rare to be habits); an item without a taxonomy is
its own subject.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa

from feature_repo.schema import HABITS_WEEKLY
from feature_repo.transforms import Queries, as_timestamp, weekly, window_end

_LEVELS = 2
_COLUMNS = (("bill", "bought"), ("click", "clicked"), ("mini_program", "browsed"))


def habits_weekly(con: Queries, anchor: datetime) -> pa.Table:
    """One row per user and week: the distinct subjects of each event source with their baskets.

    Returns:
        Table of ``schema.HABITS_WEEKLY``, sorted by window end and user.
    """
    return weekly(con, _HABITS, anchor).cast(HABITS_WEEKLY)


_LISTS = ", ".join(
    f"list(subject ORDER BY subject) FILTER (source = '{source}') AS {column}, "
    f"list(n ORDER BY subject) FILTER (source = '{source}') AS {column}_counts"
    for source, column in _COLUMNS
)
_FILLED = ", ".join(
    f"coalesce({name}, []) AS {name}"
    for _, column in _COLUMNS
    for name in (column, f"{column}_counts")
)
_HABITS = f"""
subjects AS (
    SELECT DISTINCT item_id, unnest(categories[:{_LEVELS}]) AS subject FROM items
    UNION ALL SELECT item_id, text FROM items WHERE len(categories) = 0),
window_subjects AS (
    SELECT user_id, {window_end("seen")} AS window_end, source, subject,
           count(DISTINCT coalesce(basket_id, event_id))::FLOAT AS n
    FROM known_events JOIN subjects USING (item_id) WHERE seen < $anchor GROUP BY ALL),
lists AS (SELECT user_id, window_end, {_LISTS} FROM window_subjects GROUP BY ALL)
SELECT user_id, {as_timestamp("window_end")} AS event_timestamp,
       {as_timestamp("$anchor")} AS created, {_FILLED}
FROM dense LEFT JOIN lists USING (user_id, window_end)
ORDER BY window_end, user_id"""
