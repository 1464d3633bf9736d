"""Few seed users move a query by as much as they prove: Bayes twice.

What a demand means may be in doubt: it is read as several sentences with shares. Seeds say which of
them tells the positive ones from the others (:func:`reading_posterior`); that is most of what ten
users can tell.

Then a Bayesian linear model. A user's score is q·u. Before any seed, the query is the sentence's
own (the prior's mean), and how far it may lie from the right one is a Gaussian whose covariance
comes from the population's vectors, of a size in doubt: mostly hardly at all, perhaps a lot. Ten
labels then say how large, by their evidence, and give the posterior mean in closed form, by a
ten-by-ten system for each size. Without evidence it is the zero-shot query itself, where a network
trained on ten users knows nothing.

Shapes: U users of the population, P and N seeds, S = P + N, D width of the joint space, R readings,
L strengths of selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

Floats = npt.NDArray[np.floating]
MAX_SAMPLE = 20_000
MAX_SEEDS = 100  # of each sort: as many settle any doubt, and time grows with their square
SELECTION = (0.0, 0.5, 1.0, 2.0)
"""How strongly negative seeds may have been picked for the demand's score; 0 is at random."""


@dataclass(frozen=True)
class Doubt:
    """One thing that may be true of the zero-shot query: how wrong it is, and how noisy labels are.

    Attributes:
        share: how likely that is before any seed.
        error: mean square error of a score over the population, labels being +1 and −1.
        noise: variance of a label around its score.
    """

    share: float
    error: float
    noise: float


DOUBTS = (
    Doubt(0.8, 0.03, 1.0), Doubt(0.04, 0.3, 0.7), Doubt(0.04, 1.0, 0.5), Doubt(0.04, 3.0, 0.3),
    Doubt(0.04, 10.0, 0.1), Doubt(0.04, 30.0, 0.03),
)  # fmt: skip
"""Mostly as good as right, perhaps quite wrong; docs/decisions/few-shot.md."""


@dataclass(frozen=True)
class Population:
    """What the prior needs of all users' vectors: their mean, and a square root of a covariance.

    ``root_DR`` times its transpose is the prior covariance of a query's error, scaled so that the
    error of a score has the mean square 1 over the population.
    """

    mean_D: Floats
    covariance_DD: Floats
    root_DD: Floats

    @classmethod
    def of(cls, vectors_UD: Floats, *, power: float) -> Population:
        """Moments of the population; of an even sample above :data:`MAX_SAMPLE` users.

        Args:
            power: of the covariance C. The prior is C^-power: 0 trusts every coordinate of the
                space alike, 1 every direction alike once whitened.
        """
        sample = np.asarray(_even_sample(vectors_UD, MAX_SAMPLE), np.float64)
        mean = sample.mean(0)
        covariance = (sample - mean).T @ (sample - mean) / len(sample)
        values, axes = np.linalg.eigh(covariance)
        floor = 0.01 * values.mean() or 1.0  # directions nobody differs in must not be blown up
        scale = (values.clip(0) + floor) ** (-power / 2)
        size = float((values.clip(0) * scale**2).sum()) or 1.0
        return cls(mean, covariance, axes * scale / np.sqrt(size))


def reading_posterior(
    shares_R: Floats, positives_PR: Floats, negatives_NR: Floats
) -> npt.NDArray[np.float64]:
    """Shares of the readings after the seeds were seen. [R]

    A reading's likelihood is that of the positive seeds being just these P of the S, given that P
    of them are: how many seeds of each sort somebody names says nothing about the population. Nor
    are the negative ones drawn at random, if somebody names those whom the demand would take by
    mistake. They are taken to be drawn in proportion to exp(λ × the demand's own score), for an
    unknown λ in :data:`SELECTION`: the log-odds of a seed are then the reading's less λ times the
    demand's.

    Args:
        shares_R: before; above 0.
        positives_PR: log-odds of each positive seed by each reading's sentence, up to a constant;
            an even sample of them is read above :data:`MAX_SEEDS`.
        negatives_NR: the same of the negative ones.
    """
    positives_PR = _even_sample(positives_PR, MAX_SEEDS)
    negatives_NR = _even_sample(negatives_NR, MAX_SEEDS)
    num = len(positives_PR)
    scores_SR = np.concatenate([positives_PR, negatives_NR]).astype(np.float64)
    shares_R = np.asarray(shares_R, np.float64)
    demand_S11 = (scores_SR @ shares_R / shares_R.sum())[:, None, None]
    odds_SLR = scores_SR[:, None] - np.array(SELECTION)[:, None] * demand_S11
    # log of the sum over all sets of k seeds of what they score together, for k up to P
    sets_KLR = np.full((num + 1, *odds_SLR.shape[1:]), -np.inf)
    sets_KLR[0] = 0.0
    for odds_LR in odds_SLR:
        sets_KLR[1:] = np.logaddexp(sets_KLR[1:], sets_KLR[:-1] + odds_LR)
    evidence_LR = odds_SLR[:num].sum(0) - sets_KLR[num]
    log_R = np.log(shares_R) + np.logaddexp.reduce(evidence_LR, 0)
    weight_R: npt.NDArray[np.float64] = np.exp(log_R - log_R.max())
    return weight_R / weight_R.sum()


def posterior_query(
    zero_shot_D: Floats,
    positives_PD: Floats,
    negatives_ND: Floats,
    population: Population,
    *,
    doubts: Sequence[Doubt] = DOUBTS,
    belief: float = 1.0,
) -> npt.NDArray[np.float32]:
    """Posterior mean of the query, of the zero-shot query's length. [D]

    Seeds are +1 and −1 with an intercept of their own: their shares say nothing about the
    population's. Nor does the score by which the negative ones may have been picked: the scores of
    all seeds may be stretched at will, and what is learnt has no covariance with the score over
    the population. So it takes three seeds to learn anything.

    Args:
        doubts: what may be true of the error, and how likely before any seed.
        belief: how many units of label one standard deviation of the zero-shot score predicts.
    """
    seeds_SD = np.concatenate([positives_PD, negatives_ND]).astype(np.float64)
    labels_S = np.concatenate([np.ones(len(positives_PD)), -np.ones(len(negatives_ND))])
    zero_shot = np.asarray(zero_shot_D, np.float64)
    beside_D = population.covariance_DD @ zero_shot
    prior_D = belief * zero_shot / np.sqrt(max(float(zero_shot @ beside_D), 1e-12))

    seeds_SD = seeds_SD - population.mean_D
    root_DD = _orthogonal(population.root_DD, beside_D)
    features_SD = seeds_SD @ root_DD
    expected_S = seeds_SD @ prior_D
    said = _complement(np.stack([np.ones_like(labels_S), expected_S]))  # beyond both, [S - 2, S]
    surprise = said @ (labels_S - expected_S)
    seen = said @ features_SD
    kernel = seen @ seen.T

    evidence, weights = [], []
    for doubt in doubts:
        covariance = doubt.error * kernel + doubt.noise * np.eye(len(surprise))
        factor = cho_factor(covariance, lower=True)
        solved = cho_solve(factor, surprise)
        chance = -0.5 * surprise @ solved - np.log(np.diag(factor[0])).sum()  # its logarithm
        evidence.append(np.log(doubt.share) + chance)
        weights.append(doubt.error * solved)
    share = np.exp(np.array(evidence) - max(evidence))
    weight = (share / share.sum()) @ np.array(weights)
    query = prior_D + root_DD @ (seen.T @ weight)
    length = np.linalg.norm(zero_shot) / max(float(np.linalg.norm(query)), 1e-12)
    return (query * length).astype(np.float32)


def _orthogonal(root_DR: Floats, direction_D: Floats) -> npt.NDArray[np.float64]:
    """The root of a covariance without what it has along ``direction_D``. [D, R]"""
    along_R = root_DR.T @ direction_D
    along_R = along_R / max(float(np.linalg.norm(along_R)), 1e-12)
    kept: npt.NDArray[np.float64] = root_DR - np.outer(root_DR @ along_R, along_R)
    return kept


def _complement(rows_KS: Floats) -> npt.NDArray[np.float64]:
    """Orthonormal rows that are orthogonal to K given ones. [S - K, S]"""
    axes: npt.NDArray[np.float64] = np.linalg.svd(rows_KS)[2]
    return axes[len(rows_KS) :]


def _even_sample(rows: Floats, most: int) -> Floats:
    """Every n-th row, so that at most ``most`` are left."""
    return rows[:: max(1, -(-len(rows) // most))]
