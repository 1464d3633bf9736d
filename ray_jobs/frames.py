"""Weekly rows out of Feast: what training, embedding and evaluation read, by point-in-time join."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.batch import History
from encoders.text import LineEncoder
from feature_repo.schema import TIMESTAMP
from feature_repo.settings import Workspace
from feature_repo.store import FeatureStore

WEEK = timedelta(days=7)
SEARCH_VIEW = "search_weekly"


def window_grid(last: datetime, num: int) -> list[datetime]:
    """Ends of the ``num`` weekly windows up to ``last``, ascending."""
    return [last - WEEK * k for k in range(num - 1, -1, -1)]


def weekly_rows(
    workspace: Workspace, users: Sequence[str], ends: Sequence[datetime]
) -> dict[str, pa.Table]:
    """Rows of every weekly view at each (user, window end), through Feast's history.

    Returns:
        view name → table; the search view only where the data have searches.
    """
    store = FeatureStore(workspace)
    times = np.repeat(np.array([np.datetime64(e.replace(tzinfo=None), "us") for e in ends]),
                      len(users))  # fmt: skip
    asked = pa.table(
        {
            "user_id": pa.array(list(users) * len(ends), pa.string()),
            "event_timestamp": pa.array(times).cast(TIMESTAMP),
        }
    )
    views = ["behaviour_weekly", "profile_weekly"]
    if (workspace.features / SEARCH_VIEW).is_dir():
        views.append(SEARCH_VIEW)
    return {view: store.history(view, asked) for view in views}


def save(tables: dict[str, pa.Table], directory: Path) -> None:
    """Write frames as Parquet, one file per table."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, directory / f"{name}.parquet", coerce_timestamps="us")


def read(directory: Path) -> dict[str, pa.Table]:
    """What :func:`save` wrote."""
    return {path.stem: pq.read_table(path) for path in sorted(directory.glob("*.parquet"))}


def history(tables: dict[str, pa.Table], lines: LineEncoder) -> History:
    """Weekly rows as a history that batches are cut from."""
    rows = tables["behaviour_weekly"], tables["profile_weekly"], tables.get(SEARCH_VIEW)
    cut = History(*rows, lines)
    lines.save()
    return cut
