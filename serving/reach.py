"""Reach against quality: how scores lie, and what each size of audience would bring."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from feature_repo.manifest import Manifest
from feature_repo.matrix import Matrix
from sdk.reaching import Reach, ReachPoint
from serving.calibrated import Calibrated
from serving.selecting import Eligible, Floats

_STEPS: Final = (1, 2, 5)


def reach(
    manifest: Manifest,
    matrix: Matrix,
    scores: Floats,
    among: Eligible,
    calibrated: Calibrated | None,
    *,
    bins: int,
    notes: list[str],
) -> Reach:
    """The histogram of the eligible users' ``scores`` [N], and points at 1, 2, 5, 10, … of them."""
    rows = matrix.best(scores, allowed=among.allowed)
    counts, edges = np.histogram(scores[rows].astype(np.float64), bins=bins)
    base, useful = None, None
    if calibrated is not None:
        base = float(calibrated.probabilities.mean())
        useful = int((calibrated.probabilities[rows] > base).sum())
    return Reach(
        snapshot=manifest.id,
        space=manifest.space,
        as_of=manifest.as_of,
        horizon_days=manifest.horizon_days,
        population=len(scores),
        eligible=len(rows),
        edges=edges.tolist(),
        counts=counts.tolist(),
        points=[_point(rows[:size], scores, calibrated, base) for size in _sizes(len(rows))],
        base_rate=base,
        useful_size=useful,
        notes=[*notes, *among.notes],
    )


def _sizes(count: int) -> list[int]:
    """1, 2, 5, 10, 20, … and ``count`` itself."""
    sizes, power = [], 1
    while power <= count:
        sizes += [step * power for step in _STEPS if step * power < count]
        power *= 10
    return [*sizes, count] if count else []


def _point(
    rows: npt.NDArray[np.int64], scores: Floats, calibrated: Calibrated | None, base: float | None
) -> ReachPoint:
    size, least, share = len(rows), float(scores[rows[-1]]), len(rows) / len(scores)
    if calibrated is None:
        return ReachPoint(size=size, min_score=least, share=share)
    expected, low, high = calibrated.buyers(rows)
    return ReachPoint(
        size=size, min_score=least, share=share, expected_buyers=expected, low=low, high=high,
        precision=expected / size, lift=expected / size / base if base else None,
    )  # fmt: skip
