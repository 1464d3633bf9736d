"""How many users of a snapshot did something lately, counted from the facts that it carries."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.manifest import Manifest
from feature_repo.settings import Workspace


class Buyers(NamedTuple):
    """Users in each window, latest first; and how many were in both of the latest two."""

    windows: list[int]
    again: int


def past_buyers(
    workspace: Workspace, manifest: Manifest, verb: str, subject: str, *, windows: int = 3
) -> Buyers | None:
    """Users who did it in each of the last ``windows`` horizons, at least 2, before ``as_of``.

    Returns:
        None where the snapshot carries no facts, or does not know the subject.
    """
    if manifest.facts is None:
        return None
    subjects = pq.read_table(
        workspace.root / manifest.facts.subjects.path,
        filters=[("verb", "=", verb), ("name", "=", subject)],
    )
    if len(subjects) == 0:
        return None
    days = manifest.horizon_days
    done = pq.read_table(
        workspace.root / manifest.facts.behaviour.path, columns=["day", "row"],
        filters=[("subject", "=", subjects["subject"][0].as_py()), ("day", "<", windows * days)],
    )  # fmt: skip
    found = []
    for window in range(windows):
        inside = pc.and_(
            pc.greater_equal(done["day"], window * days), pc.less(done["day"], (window + 1) * days)
        )
        found.append(np.unique(done["row"].filter(inside).to_numpy()))
    again = np.intersect1d(found[0], found[1], assume_unique=True)
    return Buyers([len(users) for users in found], len(again))
