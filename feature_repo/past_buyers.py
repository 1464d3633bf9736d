"""How many users of a snapshot did something lately, counted from the facts that it carries."""

from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.manifest import Manifest
from feature_repo.settings import Workspace


def past_buyers(
    workspace: Workspace, manifest: Manifest, verb: str, subject: str, *, windows: int = 3
) -> list[int] | None:
    """Users who did it in each of the last ``windows`` horizons before ``as_of``, latest first.

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
        found.append(int(pc.count_distinct(done["row"].filter(inside)).as_py()))
    return found
