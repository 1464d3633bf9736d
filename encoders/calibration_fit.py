"""Learning a calibration from earlier cut-offs: rates, gains, and how far both were off.

    calibration = fit([Evidence("2017-05-22", …), Evidence("2017-07-17", …)], horizon_days=28)

Every behaviour counts the same. The errors are those of behaviours that were left out, at cut-offs
that were left out (five folds by name), so an interval covers what it has not seen.

Shapes: N users, S behaviours, G gains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from encoders.calibration import (
    COVERAGE,
    LEAST_BUYERS,
    MAX_SAMPLE,
    Calibration,
    Floats,
    PastBuyers,
    Probabilities,
    gain_columns,
    log_odds,
    matching,
    rate_columns,
    shares,
)

_GAINS = np.exp(np.linspace(-1.4, 1.4, 15))
_RATE_PRIOR = (0.0, 1.0, 0.3)  # next window as the last one, drawn a third to those before
_RATE_STRENGTH = (1e-6, 100.0, 100.0)
_AUDIENCES = (0.05, 0.1, 0.25, 1.0)
_FOLDS = 5
_ONE_CUTOFF = (1.1, 1.6)  # spread and tilt so much wider, since seasons cannot be seen


@dataclass(frozen=True)
class Evidence:
    """What happened after one cut-off, and what weights trained before it said."""

    cutoff: str
    names: tuple[str, ...]  # S behaviours
    scores_NS: Floats
    labels_NS: npt.NDArray[np.bool_]
    past: tuple[PastBuyers, ...]
    base_S: Floats | None = None  # the model's own log-odds of a user who scores 0

    def only(self, chosen_S: npt.NDArray[np.bool_]) -> Evidence:
        """The evidence of some behaviours."""
        keep = np.flatnonzero(chosen_S)
        return replace(
            self, names=tuple(self.names[k] for k in keep), past=tuple(self.past[k] for k in keep),
            scores_NS=self.scores_NS[:, keep], labels_NS=self.labels_NS[:, keep],
            base_S=None if self.base_S is None else self.base_S[keep],
        )  # fmt: skip


def fit(evidence: Sequence[Evidence], *, horizon_days: int, scale: float = 1.0) -> Calibration:
    """Learn from earlier cut-offs; behaviours with too few past buyers are left out.

    Args:
        scale: of the checkpoint whose scores will be calibrated.

    Raises:
        ValueError: when no behaviour is left.
    """
    usable = [each.only(_has_ground(each.past)) for each in evidence]
    usable = [each for each in usable if each.names]
    if not usable:
        raise ValueError(
            f"evidence: expected behaviours with at least {LEAST_BUYERS} past buyers at some "
            f"cut-off, got none in {len(evidence)}; calibrate on more users or a longer past"
        )
    curves = [_Curve.of(each) for each in usable]
    found = _fit(usable, curves, horizon_days)
    spread, tilt = _errors(usable, curves, horizon_days)
    return replace(found, spread=spread, tilt=tilt, scale=scale)


def _fit(usable: Sequence[Evidence], curves: Sequence[_Curve], horizon_days: int) -> Calibration:
    share = np.concatenate([shares(each.past) for each in usable])
    return Calibration(
        horizon_days=horizon_days, rate=_fit_rate(usable), gain=_fit_gain(curves),
        spread=0.0, tilt=0.0, lowest=float(share.min()), highest=float(share.max()),
        cutoffs=tuple(each.cutoff for each in usable),
        num_behaviours=len({name for each in usable for name in each.names}),
    )  # fmt: skip


def _has_ground(past: Sequence[PastBuyers]) -> npt.NDArray[np.bool_]:
    return np.array([LEAST_BUYERS <= p.last <= 0.98 * p.users for p in past], bool)


def _fit_rate(usable: Sequence[Evidence]) -> tuple[float, float, float]:
    """Weighted ridge regression of log-odds, towards "as in the last window"."""
    columns = np.concatenate([rate_columns(each.past) for each in usable])
    after = np.concatenate([
        log_odds(each.labels_NS.sum(0), np.full(len(each.names), float(len(each.labels_NS))))
        for each in usable
    ])  # fmt: skip
    share = np.concatenate([shares(each.past) for each in usable])
    users = np.concatenate([[float(p.users) for p in each.past] for each in usable])
    weight = 1 / (1 / (users * share * (1 - share)) + 0.05)
    ridge, prior = np.diag(_RATE_STRENGTH), np.array(_RATE_PRIOR)
    system = (columns * weight[:, None]).T @ columns + ridge
    b = np.linalg.solve(system, (columns * weight[:, None]).T @ after + ridge @ prior)
    return float(b[0]), float(b[1]), float(b[2])


@dataclass(frozen=True)
class _Curve:
    """Log-likelihood of each behaviour at some gains, once its own rate is matched. [G, S]"""

    likelihood_GS: Floats
    columns_S4: Floats

    @classmethod
    def of(cls, evidence: Evidence) -> _Curve:
        labels, scores = evidence.labels_NS, np.asarray(evidence.scores_NS, np.float64)
        rate = np.clip(labels.mean(0), 1e-3, 1 - 1e-3)
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        likelihood = []
        for gain in _GAINS:
            z = gain * scores
            z = z + matching(z[:: max(1, len(z) // MAX_SAMPLE)], rate)
            likelihood.append((labels * z - np.logaddexp(0, z)).mean(0) / entropy)
        return cls(np.array(likelihood), gain_columns(scores, rate, evidence.past))

    def only(self, chosen_S: npt.NDArray[np.bool_]) -> _Curve:
        return _Curve(self.likelihood_GS[:, chosen_S], self.columns_S4[chosen_S])


def _fit_gain(curves: Sequence[_Curve]) -> tuple[float, ...]:
    """θ of the highest likelihood, every behaviour counting the same."""
    at = np.log(_GAINS)

    def loss(theta: Floats) -> float:
        total = 0.0
        for curve in curves:
            wanted = np.clip(curve.columns_S4 @ theta, at[0], at[-1])
            total -= float(np.mean([
                np.interp(g, at, curve.likelihood_GS[:, s]) for s, g in enumerate(wanted)
            ]))  # fmt: skip
        return total / len(curves) + 0.002 * float(np.square(theta).sum())

    theta = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 500}).x
    return tuple(map(float, theta))


def fold_of(name: str) -> int:
    """The fold of a behaviour: the same at every cut-off and in every study."""
    return sum(name.encode()) % _FOLDS


_Told = tuple[Probabilities, npt.NDArray[np.intp], int]


def _errors(
    usable: Sequence[Evidence], curves: Sequence[_Curve], horizon_days: int
) -> tuple[float, float]:
    """Spread and tilt, such that the intervals hold :data:`COVERAGE` of what happened.

    Each behaviour is predicted from others only, and from other cut-offs where there are any.
    """
    told: list[_Told] = []
    for at, each in enumerate(usable):
        others = [k for k in range(len(usable)) if k != at] or [at]
        for fold in range(_FOLDS):
            held = [np.array([fold_of(n) == fold for n in usable[k].names]) for k in others]
            mine = np.array([fold_of(name) == fold for name in each.names])
            if not mine.any() or any(h.all() for h in held):
                continue
            fitted = _fit(
                [usable[k].only(~h) for k, h in zip(others, held, strict=True)],
                [curves[k].only(~h) for k, h in zip(others, held, strict=True)], horizon_days,
            )  # fmt: skip
            told += _predicted(fitted, each.only(mine))
    wider, steeper = _ONE_CUTOFF if len(usable) == 1 else (1.0, 1.0)
    everybody = [one for one in told if len(one[1]) == len(one[0].p_N)]
    fewer = [one for one in told if len(one[1]) < len(one[0].p_N)]
    spread = wider * _covering(everybody, lambda p, by: replace(p, spread=math.hypot(p.spread, by)))
    fewer = [(replace(p, spread=math.hypot(p.spread, spread)), rows, n) for p, rows, n in fewer]
    return spread, steeper * _covering(fewer, lambda p, by: replace(p, tilt=by))


def _predicted(fitted: Calibration, evidence: Evidence) -> list[_Told]:
    """What is stated of audiences of several sizes, and how many of them did it."""
    told: list[_Told] = []
    for s, past in enumerate(evidence.past):
        likely = fitted.probabilities(evidence.scores_NS[:, s], past)
        order = np.argsort(-evidence.scores_NS[:, s], kind="stable")
        for share in _AUDIENCES if likely.grounded else ():
            rows = order[: max(1, round(share * len(order)))]
            told.append((likely, rows, int(evidence.labels_NS[rows, s].sum())))
    return told


def _spread_by(likely: Probabilities, by: float) -> Probabilities:
    return replace(likely, spread=math.hypot(likely.spread, by))


def _covering(
    told: Sequence[_Told], wider: Callable[[Probabilities, float], Probabilities]
) -> float:
    """The least by which intervals have to be wider, by bisection."""
    low, high = 0.0, 1.5
    for _ in range(8 if told else 0):
        middle = (low + high) / 2
        ends = [(wider(likely, middle).buyers(rows), n) for likely, rows, n in told]
        inside = sum(low_end <= n <= high_end for (_, low_end, high_end), n in ends)
        low, high = (low, middle) if inside >= COVERAGE * len(told) else (middle, high)
    return high if told else 0.0
