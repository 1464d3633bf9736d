"""The weekly rows of a few users up to a date, read straight from the parts of a view.

The same rows as Feast's history (of two builds of a window the later one), without its join over
all users: for a request that waits. Never a row that ends after the date.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from feature_repo.errors import NotCarried

_ROWS: Final = """
    SELECT * FROM read_parquet($parts)
    WHERE user_id IN (SELECT unnest($users))
      AND event_timestamp > $first AND event_timestamp <= $last
      AND epoch_us(event_timestamp) % $week = epoch_us($last::TIMESTAMPTZ) % $week
    QUALIFY row_number() OVER (PARTITION BY user_id, event_timestamp ORDER BY created DESC) = 1
    ORDER BY user_id, event_timestamp
"""
_WEEK: Final = timedelta(days=7)


def user_rows(
    features: Path, view: str, users: Sequence[str], last: datetime, *, weeks: int
) -> pa.Table:
    """Rows of ``users`` whose windows end at ``last`` or up to ``weeks`` - 1 weeks before.

    Args:
        features: where the views' directories are, of the present tables or of a snapshot's.

    Returns:
        all columns of the view, sorted by user and window; nothing for unknown users.

    Raises:
        NotCarried: there is no such view any more.
    """
    parts = features / view
    if not any(parts.glob("*.parquet")):
        raise NotCarried(
            f"{parts} holds no weekly rows, so nobody's past can be read; build them with "
            f"`python -m ray_jobs.build_features --as-of {last:%Y-%m-%d}`"
        )
    given = {
        "parts": str(parts / "*.parquet"), "users": list(users), "last": last,
        "first": last - _WEEK * weeks, "week": _WEEK // timedelta(microseconds=1),
    }  # fmt: skip
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(_ROWS, params=given).to_arrow_table()
