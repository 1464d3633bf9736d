"""Planted hard negatives: a sentence that fits two interests, and seeds that say which is meant.

In a planted world (``ray_jobs.evaluation.planted``) somebody asks for the buyers of one topic or
another. The positive seeds buy the first; the negative ones, the decoys, hold the second alone, so
the sentence takes them for what is sought. **Synthetic data.**

Shapes: U users, K topics, D width of the space.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encoders.query import QueryEncoder
from ray_jobs import metrics
from ray_jobs.few_shot_methods import Demand, Seeds, methods

NUM_SEEDS = 5  # of each sort
DRAWS = 5


def measure(
    encoder: QueryEncoder, vectors_UD: np.ndarray, held_UK: np.ndarray, bought_UK: np.ndarray,
    topics: Sequence[str],
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Each method's mean over topics and draws, seeds left out of the ranking.

    Args:
        encoder: with the reader of demands that the service has.

    Returns:
        method → ``auc`` and ``precision`` (k = number of buyers) over all users, and ``apart``,
        the AUC of buyers against decoys alone.
    """
    found: dict[str, list[tuple[float, float, float]]] = {}
    ways = methods(encoder, vectors_UD, steps=1)
    ways = {name: way for name, way in ways.items() if not name.startswith("prompt tokens")}
    for k, name in enumerate(topics):
        other = (k + 1) % len(topics)
        sentence = f"will buy {name} or {topics[other]} in the next four weeks"
        buys_U = bought_UK[:, k]
        decoy_U = held_UK[:, other] & ~held_UK[:, k] & ~buys_U
        if min(buys_U.sum(), decoy_U.sum()) <= NUM_SEEDS:
            continue
        demand = Demand(sentence, encoder.read(sentence))  # as the service reads it
        drawn = [_draw(buys_U, decoy_U, (one, k)) for one in range(DRAWS)]
        for method, way in ways.items():
            ranked = way(demand, vectors_UD, drawn)
            found.setdefault(method, []).extend(
                _score(scores_U, buys_U, decoy_U, seeds)
                for scores_U, seeds in zip(ranked, drawn, strict=True)
            )
    return {
        method: dict(zip(("auc", "precision", "apart"), np.mean(each, 0).tolist(), strict=True))
        for method, each in found.items()
    }


def _draw(buys_U: np.ndarray, decoy_U: np.ndarray, seed: Sequence[int]) -> Seeds:
    rng = np.random.default_rng(list(seed))
    positives, negatives = (
        rng.choice(np.flatnonzero(those_U), NUM_SEEDS, replace=False)
        for those_U in (buys_U, decoy_U)
    )
    return Seeds(positives, negatives)


def _score(
    scores_U: np.ndarray, buys_U: np.ndarray, decoy_U: np.ndarray, seeds: Seeds
) -> tuple[float, float, float]:
    left = np.setdiff1d(np.arange(len(buys_U)), seeds.all)
    scores, buys = scores_U[left], buys_U[left]
    told = buys | decoy_U[left]
    return (
        metrics.auc(scores, buys), metrics.precision_at(scores, buys),
        metrics.auc(scores[told], buys[told]),
    )  # fmt: skip
