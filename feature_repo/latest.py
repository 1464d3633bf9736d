"""Each user's latest row at a date, out of a directory of Parquet parts, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)

# The keys are settled first, so that only they are held in memory, and the wide columns stream.
_LATEST: Final = """
    WITH found AS (
        SELECT user_id, max(struct_pack(t := event_timestamp, c := created)) AS latest
        FROM read_parquet($parts)
        WHERE event_timestamp BETWEEN $first AND $at
        GROUP BY user_id
    )
    SELECT parts.*
    FROM read_parquet($parts) AS parts
    JOIN found USING (user_id)
    WHERE parts.event_timestamp = latest.t AND parts.created = latest.c
"""


def latest_rows(
    directory: Path, columns: Sequence[str], at: datetime, *, ttl: timedelta | None, batch: int
) -> Iterator[pa.Table]:
    """Rows of the users that have one in [at - ttl, at], the latest of each; no ttl: ever before.

    Of two rows with the same event_timestamp the later ``created`` wins. Tables of at most
    ``batch`` rows in no order, each in one chunk.
    """
    given = {
        "parts": str(directory / "*.parquet"),
        "first": at - ttl if ttl else _BEGINNING,
        "at": at,
    }
    with duckdb.connect() as connection:
        for rows in connection.sql(_LATEST, params=given).to_arrow_reader(batch):
            if rows.num_rows:
                yield pa.Table.from_batches([rows]).select(list(columns))
