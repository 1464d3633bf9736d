"""Are the probabilities that a snapshot states true? By what happened from its ``as_of`` on.

Where the workspace holds earlier snapshots, each scored by weights trained before it: a behaviour
is predicted by a calibration learnt from *other* behaviours at those earlier cut-offs, as in
:mod:`ray_jobs.calibration_study`, beside the raw score with the model's own base rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from encoders.calibration_fit import Evidence
from ray_jobs import calibration_study
from ray_jobs.calibration import earlier, evidence
from ray_jobs.evaluation.subject import Subject


def measure(subject: Subject) -> dict[str, Any] | None:
    """Shares of behaviours that pass, coverage of intervals, and demands that it abstains on.

    Returns:
        None where there is no earlier snapshot to learn from, nothing can be stated, or the data
        end before the snapshot's horizon does.
    """
    manifest = subject.manifest
    if not subject.protocol.reaches(manifest.horizon_days):
        return None
    workspace = subject.workspace
    over = earlier(workspace, manifest.as_of, manifest.horizon_days)
    tables = workspace.root / subject.dataset.tables
    after = manifest.as_of + timedelta(days=manifest.horizon_days)
    learnt = [evidence(workspace, tables, one, known_before=manifest.as_of) for one in over]
    now = evidence(workspace, tables, manifest, known_before=after)
    known = [one for one in learnt if one is not None]
    return None if not known or now is None else compared(known, now)


def compared(learnt: Sequence[Evidence], now: Evidence) -> dict[str, Any] | None:
    """The figures of one cut-off; None if it abstains on everything."""
    rows = list(calibration_study.held_out(learnt, now))
    if not rows:
        return None
    group = calibration_study.summary(rows)["groups"]["all"]
    return {
        "learnt_from": [one.cutoff for one in learnt], "behaviours": len(now.names),
        "abstained": len(now.names) - len(rows), **group,
        "bins": [_bin(rows, k) for k in range(calibration_study.BINS)],
    }  # fmt: skip


def _bin(rows: Sequence[dict[str, Any]], k: int) -> dict[str, float]:
    """One bin of the reliability diagram, over all behaviours: users, stated, happened."""
    users, stated, happened = np.sum([row["bins"][k] for row in rows] or [[0, 0, 0]], axis=0)
    count = max(float(users), 1.0)
    return {"users": int(users), "stated": stated / count, "happened": happened / count}
