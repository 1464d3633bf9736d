"""Paired bootstrap over households: is one method better than another, or was it luck?

A household counts in many tasks at once, so a resample draws households, once for all tasks and
all methods; the difference of two methods is taken within each resample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 500


class Resamples:
    """The same draws for every method: how often each household is in each resample.

    Args:
        users: everybody, in a fixed order.
    """

    def __init__(self, users: Sequence[str], *, num: int = RESAMPLES, seed: int = 0):
        n = len(users)
        self._position = {user: row for row, user in enumerate(users)}
        self._times_RN = _draw(n, num, seed)

    def auc(self, scores: np.ndarray, labels: np.ndarray, users: Sequence[str]) -> np.ndarray:
        """AUC in every resample, float64 [R]; NaN where a resample lacks one of the classes."""
        columns = np.array([self._position[user] for user in users], np.int64)
        order = np.argsort(scores, kind="stable")
        hit = labels[order].astype(bool)
        times_RN = self._times_RN[:, columns[order]]
        bad_RN = times_RN * ~hit
        upto_RN = np.cumsum(bad_RN, axis=1)
        # A positive beats the negatives below its tie, and half of those in it.
        first = np.searchsorted(scores[order], scores[order][hit], "left")
        last = np.searchsorted(scores[order], scores[order][hit], "right") - 1
        below_RP = upto_RN[:, first] - bad_RN[:, first]
        won_R = (times_RN[:, hit] * (below_RP + upto_RN[:, last]) / 2).sum(1)
        pairs_R = times_RN[:, hit].sum(1) * upto_RN[:, -1]
        return np.where(pairs_R > 0, won_R / np.maximum(pairs_R, 1), np.nan)

    def precision(self, scores: np.ndarray, labels: np.ndarray, users: Sequence[str]) -> np.ndarray:
        """Precision@k in every resample, float64 [R], k being its positives; NaN without any.

        Households with equal scores keep their order.
        """
        columns = np.array([self._position[user] for user in users], np.int64)
        order = np.argsort(-scores, kind="stable")
        hit = labels[order].astype(bool)
        times_RN = self._times_RN[:, columns[order]]
        times_RP, upto_RP = times_RN[:, hit], np.cumsum(times_RN, axis=1)[:, hit]
        k_R = times_RP.sum(1)
        room_RP = k_R[:, None] - (upto_RP - times_RP)
        hits_R = np.clip(room_RP, 0, times_RP).sum(1, dtype=float)  # the last one perhaps in part
        return np.where(k_R > 0, hits_R / np.maximum(k_R, 1), np.nan)

    def mean(self, values: np.ndarray, users: Sequence[str]) -> np.ndarray:
        """Mean of one value per user in every resample, float64 [R]; NaN without any of them."""
        columns = np.array([self._position[user] for user in users], np.int64)
        times_RN = self._times_RN[:, columns].astype(float)
        drawn_R = times_RN.sum(1)
        return np.where(drawn_R > 0, times_RN @ values / np.maximum(drawn_R, 1), np.nan)


def _draw(n: int, num: int, seed: int) -> np.ndarray:
    times_RN = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), num)
    return times_RN.astype(np.float32)


def difference(ours_R: np.ndarray, theirs_R: np.ndarray) -> dict[str, float]:
    """Mean difference over resamples and its 95 % interval."""
    difference_R = np.asarray(ours_R, float) - np.asarray(theirs_R, float)
    low, high = np.nanquantile(difference_R, [0.025, 0.975])
    return {"mean": float(np.nanmean(difference_R)), "low": float(low), "high": float(high)}
