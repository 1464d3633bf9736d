"""Weekly rows out of Feast: what training and embedding read, by point-in-time join."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from encoders.past import SEARCH_VIEW, VIEWS
from feature_repo.schema import TIMESTAMP
from feature_repo.settings import Workspace
from feature_repo.store import FeatureStore
from ray_jobs.frames import PURCHASES_VIEW

WEEK = timedelta(days=7)


def views_of(model: str) -> tuple[str, ...]:
    """The weekly views that a model reads, whether or not a workspace has them all."""
    if model == "shopper_bert":
        return (PURCHASES_VIEW,)
    return VIEWS


def window_grid(last: datetime, num: int) -> list[datetime]:
    """Ends of the ``num`` weekly windows up to ``last``, ascending."""
    return [last - WEEK * k for k in range(num - 1, -1, -1)]


def weekly_rows(
    workspace: Workspace,
    users: Sequence[str],
    ends: Sequence[datetime],
    views: Sequence[str] | None = None,
) -> dict[str, pa.Table]:
    """Rows of weekly views at each (user, window end), through Feast's history.

    Args:
        views: default those of the alignment model.

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
    wanted = views_of("alignment") if views is None else views
    return {
        view: store.history(view, asked)
        for view in wanted
        if view != SEARCH_VIEW or (workspace.features / SEARCH_VIEW).is_dir()
    }
