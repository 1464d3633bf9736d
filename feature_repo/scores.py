"""Scores of downstream models as features: handed back, point-in-time and online like any other.

    view = write_scores(store, "big_spender", users, scores, at, space=space)
    store.materialize(view, at)

A part per date lies under ``WORKSPACE/scores/<name>``; ``definitions.py`` finds it there, so that
publishing a snapshot keeps the view.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import durable
from feature_repo.definitions import score_view
from feature_repo.errors import InputError
from feature_repo.schema import SCORES
from feature_repo.store import FeatureStore


def write_scores(
    store: FeatureStore, name: str, users: Sequence[str], scores: np.ndarray, at: datetime, *,
    space: str,
) -> str:  # fmt: skip
    """Keep the scores of one date and make them a feature; returns the view's name.

    A second write for the same date replaces the first.

    Args:
        name: lower-case words joined by "_".
        scores: one per user, finite.
        at: the date they are valid from; the embeddings they were made from are not later.
        space: of those embeddings; scores of two spaces are not comparable.

    Raises:
        InputError: the name, the scores or the date are not as above.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise InputError(f"name: expected lower-case words joined by _, got {name!r}")
    values = np.asarray(scores, np.float64)
    if values.shape != (len(users),) or not np.isfinite(values).all():
        raise InputError(
            f"scores: expected {len(users)} finite numbers, one per user, got shape "
            f"{values.shape} with {int((~np.isfinite(values)).sum())} not finite"
        )
    if len(set(users)) != len(users):
        raise InputError("users: expected every user once, got some twice; keep one score each")
    if at.tzinfo is None:
        raise InputError(f"at: expected a date with time zone, got {at}; add tzinfo=UTC")
    rows = len(users)
    table = pa.table(
        [list(users), [at] * rows, [datetime.now(UTC)] * rows, values, [space] * rows],
        schema=SCORES,
    )  # fmt: skip
    path = store.workspace.scores / name / f"part-{at.astimezone(UTC):%Y%m%dT%H%M%S}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable.replacing(path) as temporary:
        pq.write_table(table, temporary, coerce_timestamps="us")
    store.apply()
    return score_view(name)
