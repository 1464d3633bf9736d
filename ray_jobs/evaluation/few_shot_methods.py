"""Ways to rank a population by a sentence and a few seed users, all on the same frozen vectors.

A method takes one task's demand, its population's vectors, and the seeds of several draws; it
gives each draw's scores. What it trains it trains on the seeds alone.

Shapes: N users of the task's population, K draws, D width of the space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from encoders.prompt import ANCHORED, PAPER, TuneConfig, tune_many
from encoders.query import QueryEncoder
from encoders.rewriting import Reading

SENTENCE, OURS = "sentence", "ours"
QUICK = (SENTENCE, OURS, "U-MLP", "logistic regression", "nearest centroid")
BY_TOKENS = ("prompt tokens, anchored", "prompt tokens, eq. 16")
_MLP_STEPS = 50


@dataclass(frozen=True)
class Seeds:
    """Positions of the seed users in a task's population."""

    positives: np.ndarray
    negatives: np.ndarray

    @property
    def all(self) -> np.ndarray:
        """Positives, then negatives."""
        return np.concatenate([self.positives, self.negatives])

    @property
    def labels(self) -> np.ndarray:
        """1 for a positive, 0 for a negative, in the order of :attr:`all`."""
        return np.repeat([1, 0], [len(self.positives), len(self.negatives)])


@dataclass(frozen=True)
class Demand:
    """What is asked for: in whose words, and what those are read as."""

    text: str
    reading: Reading


Method = Callable[[Demand, np.ndarray, list[Seeds]], np.ndarray]  # [N, D], K draws → [K, N]


def methods(encoder: QueryEncoder, population_UD: np.ndarray) -> dict[str, Method]:
    """What takes a fraction of a second for each draw, by name, as in :data:`QUICK`."""

    def sentence(demand: Demand, users_ND: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        scores = users_ND @ encoder.mixed(demand.reading)
        return np.tile(scores, (len(draws), 1))

    def ours(demand: Demand, users_ND: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        positives, negatives = _vectors(users_ND, draws)
        starts = [encoder.mixed(encoder.settled(demand.reading, yes, no))
                  for yes, no in zip(positives, negatives, strict=True)]  # fmt: skip
        prompts = tune_many(
            encoder.model, [demand.text] * len(draws), positives, negatives, population_UD,
            starts_BD=np.stack(starts),
        )  # fmt: skip
        return np.stack([p.query_D for p in prompts]) @ users_ND.T

    mean = population_UD.mean(0)
    spread = float((population_UD - mean).std()) or 1.0

    def apart(fit: Callable[[np.ndarray, Seeds], np.ndarray]) -> Method:
        def score(demand: Demand, users_ND: np.ndarray, draws: list[Seeds]) -> np.ndarray:
            scaled = (users_ND - mean) / spread
            return np.stack([fit(scaled, seeds) for seeds in draws])

        return score

    ways = (sentence, ours, apart(u_mlp), apart(logistic), apart(centroid))
    return dict(zip(QUICK, ways, strict=True))


def token_methods(encoder: QueryEncoder, population_UD: np.ndarray) -> dict[str, Method]:
    """Prompt tokens before the sentence, by name, as in :data:`BY_TOKENS`: most of a second a draw.

    The first keeps the query near the sentence's and ranks as an inner product does; the second is
    the paper's eq. 16 and nothing else (``encoders.prompt``).
    """

    def tuned(config: TuneConfig) -> Method:
        def score(demand: Demand, users_ND: np.ndarray, draws: list[Seeds]) -> np.ndarray:
            prompts = tune_many(
                encoder.model, [demand.text] * len(draws), *_vectors(users_ND, draws),
                population_UD, config,
            )  # fmt: skip
            return np.stack([p.query_D for p in prompts]) @ users_ND.T

        return score

    return dict(zip(BY_TOKENS, map(tuned, (ANCHORED, PAPER)), strict=True))


def _vectors(users_ND: np.ndarray, draws: list[Seeds]) -> tuple[np.ndarray, np.ndarray]:
    """Of the positive and of the negative seeds, [K, P, D] and [K, N, D]."""
    positives = np.stack([users_ND[d.positives] for d in draws])
    return positives, np.stack([users_ND[d.negatives] for d in draws])


def u_mlp(users_ND: np.ndarray, seeds: Seeds) -> np.ndarray:
    """One4all's network over frozen vectors, input-512-256-128-64-output with ReLU. [N]"""
    torch.manual_seed(0)
    widths = [users_ND.shape[1], 512, 256, 128, 64]
    layers: list[nn.Module] = []
    for wide, narrow in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
    x = torch.tensor(users_ND, dtype=torch.float32)
    y = torch.tensor(seeds.labels, dtype=torch.float32)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(_MLP_STEPS):
        optimiser.zero_grad()
        logits = network(x[seeds.all]).squeeze(1)
        nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
        optimiser.step()
    with torch.no_grad():
        return np.asarray(network(x).squeeze(1).numpy())


def logistic(users_ND: np.ndarray, seeds: Seeds) -> np.ndarray:
    """L2 logistic regression, C = 1. [N]"""
    fitted = LogisticRegression(max_iter=300).fit(users_ND[seeds.all], seeds.labels)
    return np.asarray(fitted.decision_function(users_ND))


def centroid(users_ND: np.ndarray, seeds: Seeds) -> np.ndarray:
    """How much nearer to the positives' mean than to the negatives', in squared distance. [N]"""
    near = ((users_ND - users_ND[seeds.positives].mean(0)) ** 2).sum(1)
    far = ((users_ND - users_ND[seeds.negatives].mean(0)) ** 2).sum(1)
    return np.asarray(far - near)
