"""Planted hard negatives: a sentence that fits two interests, and seeds that say which is meant.

In a planted world (``ray_jobs.evaluation.planted``) somebody asks for the buyers of one topic or
another. The positive seeds buy the first; the negative ones, the decoys, hold the second alone, so
the sentence takes them for what is sought. **Synthetic data.**

Who buys among those who hold an interest is chance, so precision@k has a low ceiling, which the
oracle shows: a method above it was lucky. How many of the k best hold the interest is not.

Shapes: U users, K topics, D width of the space, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from encoders.query import QueryEncoder
from ray_jobs import metrics
from ray_jobs.evaluation.bootstrap import Resamples, difference
from ray_jobs.evaluation.few_shot_methods import OURS, Demand, Seeds, methods

NUM_SEEDS = 5  # of each sort
DRAWS = 5
ORACLE = "oracle"
FIGURES = ("auc", "precision", "holders", "apart")


def measure(
    encoder: QueryEncoder, vectors_UD: np.ndarray, held_UK: np.ndarray, bought_UK: np.ndarray,
    topics: Sequence[str],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Each method's mean over topics and draws, seeds left out of the ranking.

    Args:
        encoder: with the reader of demands that the service has.

    Returns:
        method → over all users ``auc``, ``precision`` (k = number of buyers) and ``holders`` (the
        share of the k best who hold the interest); ``apart``, the AUC of buyers against decoys
        alone; and ``ours minus this``, in AUC, with its 95 % interval over users.
    """
    ways = methods(encoder, vectors_UD)
    resamples = Resamples([str(row) for row in range(len(vectors_UD))])
    found: dict[str, list[tuple[float, ...]]] = {}
    aucs: dict[str, list[np.ndarray]] = {}
    for k, name in enumerate(topics):
        other = (k + 1) % len(topics)
        sentence = f"will buy {name} or {topics[other]} in the next four weeks"
        buys_U, holds_U = bought_UK[:, k], held_UK[:, k].astype(bool)
        decoy_U = held_UK[:, other] & ~holds_U & ~buys_U
        if min(buys_U.sum(), decoy_U.sum()) <= NUM_SEEDS:
            continue
        demand = Demand(sentence, encoder.read(sentence))  # as the service reads it
        drawn = [_draw(buys_U, decoy_U, (one, k)) for one in range(DRAWS)]
        ranked = {method: way(demand, vectors_UD, drawn) for method, way in ways.items()}
        ranked[ORACLE] = np.tile(holds_U.astype(float), (DRAWS, 1))
        for method, scores_SU in ranked.items():
            for scores_U, seeds in zip(scores_SU, drawn, strict=True):
                left = np.setdiff1d(np.arange(len(buys_U)), seeds.all)
                scores, buys = scores_U[left], buys_U[left]
                found.setdefault(method, []).append(
                    _figures(scores, buys, holds_U[left], decoy_U[left])
                )
                aucs.setdefault(method, []).append(
                    resamples.auc(scores, buys, left.astype(str).tolist())
                )
    means: dict[str, dict[str, Any]] = {
        method: dict(zip(FIGURES, np.mean(each, 0).tolist(), strict=True))
        for method, each in found.items()
    }
    for method in means.keys() - {OURS} if OURS in means else ():
        gain = difference(np.mean(aucs[OURS], 0), np.mean(aucs[method], 0))
        means[method]["ours minus this"] = gain
    return means


def _draw(buys_U: np.ndarray, decoy_U: np.ndarray, seed: Sequence[int]) -> Seeds:
    rng = np.random.default_rng(list(seed))
    positives, negatives = (
        rng.choice(np.flatnonzero(those_U), NUM_SEEDS, replace=False)
        for those_U in (buys_U, decoy_U)
    )
    return Seeds(positives, negatives)


def _figures(
    scores: np.ndarray, buys: np.ndarray, holds: np.ndarray, decoys: np.ndarray
) -> tuple[float, ...]:
    told = buys | decoys
    return (
        metrics.auc(scores, buys), metrics.precision_at(scores, buys),
        metrics.precision_at(scores, holds, int(buys.sum())),
        metrics.auc(scores[told], buys[told]),
    )  # fmt: skip
