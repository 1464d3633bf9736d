"""The Bayesian linear model: its formula, what no evidence does, and what evidence does."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from encoders.posterior import (
    MAX_SAMPLE,
    MAX_SEEDS,
    SELECTION,
    Doubt,
    Population,
    posterior_query,
    reading_posterior,
)

D = 6


@pytest.fixture
def users() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((400, D)) * [5, 3, 2, 1, 1, 0.5] + 4).astype(np.float32)


def sure(error: float, noise: float = 1.0) -> list[Doubt]:
    """No doubt how wrong the sentence is."""
    return [Doubt(share=1.0, error=error, noise=noise)]


def move(users: np.ndarray, *, error: float = 0.5, power: float = 0.5) -> np.ndarray:
    """The query of coordinate 0 after seeds that differ in coordinate 1 only."""
    mean, step = users.mean(0), np.eye(D)[1] * 3
    return posterior_query(
        np.eye(D)[0], np.stack([mean + step] * 5), np.stack([mean - step] * 5),
        Population.of(users, power=power), doubts=sure(error),
    )  # fmt: skip


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_it_is_the_posterior_mean_of_the_weights(users: np.ndarray, power: float) -> None:
    """Against the textbook form in weight space, with intercept and score as free weights."""
    rng = np.random.default_rng(1)
    population = Population.of(users, power=power)
    zero_shot, seeds = rng.standard_normal(D), users[:10].astype(float)
    labels = np.array([1.0] * 5 + [-1.0] * 5)
    found = posterior_query(
        zero_shot, seeds[:5], seeds[5:], population, doubts=sure(0.3, 0.7), belief=0.8
    )

    scores = users.astype(float) @ zero_shot
    prior_mean = 0.8 * zero_shot / scores.std()
    x = seeds - users.astype(float).mean(0)
    # The error's covariance given that it has none with the score over the population.
    prior = 0.3 * population.root_DD @ population.root_DD.T
    with_score = population.covariance_DD @ zero_shot
    gain = prior @ with_score / (with_score @ prior @ with_score)
    prior = prior - np.outer(gain, with_score @ prior)
    wide = np.zeros((D + 2, D + 2))  # and two weights of which nothing is known before
    wide[:D, :D], wide[D:, D:] = prior, 1e9 * np.eye(2)
    design = np.column_stack([x, np.ones(10), x @ prior_mean])
    covariance = design @ wide @ design.T + 0.7 * np.eye(10)
    expected = wide @ design.T @ np.linalg.solve(covariance, labels - x @ prior_mean)
    expected = prior_mean + expected[:D]
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(zero_shot), rel=1e-5)


def test_what_may_be_true_counts_by_its_evidence(users: np.ndarray) -> None:
    """Two doubts give their two answers, weighed by share times the chance of these labels."""
    rng = np.random.default_rng(2)
    population, zero_shot = Population.of(users, power=0.0), rng.standard_normal(D)
    seeds, labels = users[:12].astype(float), np.repeat([1.0, -1.0], 6)
    doubts = [Doubt(0.7, 0.1, 1.0), Doubt(0.3, 5.0, 0.2)]
    x = seeds - users.astype(float).mean(0)
    score = x @ zero_shot / np.std(users.astype(float) @ zero_shot)
    keep = np.linalg.qr(np.column_stack([np.ones(12), score]), mode="complete")[0][:, 2:]
    with_score = population.root_DD.T @ population.covariance_DD @ zero_shot
    along = with_score / np.linalg.norm(with_score)
    root = population.root_DD @ (np.eye(D) - np.outer(along, along))
    weights, answers = [], []
    for doubt in doubts:
        covariance = keep.T @ (doubt.error * x @ root @ root.T @ x.T) @ keep
        covariance = covariance + doubt.noise * np.eye(10)
        told = keep.T @ (labels - score)
        chance = multivariate_normal(np.zeros(10), covariance).pdf(told)
        weights.append(doubt.share * chance)
        step = doubt.error * root @ root.T @ x.T @ keep @ np.linalg.solve(covariance, told)
        answers.append(zero_shot / np.std(users.astype(float) @ zero_shot) + step)
    expected = np.average(answers, axis=0, weights=weights)
    found = posterior_query(zero_shot, seeds[:6], seeds[6:], population, doubts=doubts)
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine == pytest.approx(1.0, abs=1e-5)


def test_negatives_picked_for_their_score_do_not_turn_the_query() -> None:
    """Whoever names the likeliest non-buyers says nothing; whoever names others says what."""
    rng = np.random.default_rng(0)
    everyone = rng.standard_normal((2_000, 20)).astype(np.float32)
    sentence = np.eye(20)[0]
    kept, turned = [], []
    for _ in range(20):
        buys = rng.random(2_000) < 1 / (1 + np.exp(2 - 2 * everyone[:, 0]))
        positives = everyone[rng.choice(np.flatnonzero(buys), 5, replace=False)]
        likely = np.argsort(-np.where(buys, -np.inf, everyone[:, 0]))[:50]
        picked = everyone[rng.choice(likely, 5, replace=False)]
        population = Population.of(everyone, power=0.0)
        kept.append(posterior_query(sentence, positives, picked, population)[0])
        others = everyone[np.argsort(everyone[:, 1])[:100]]  # low on what the sentence leaves open
        alike = everyone[np.argsort(-everyone[:, 1])[:100]]
        told = rng.choice(100, 5, replace=False)
        turned.append(posterior_query(sentence, alike[told], others[told], population))
    assert np.mean(kept) > 0.9
    step = np.mean(turned, 0)
    assert step[1] > 0.08 and np.abs(step[2:]).max() < step[1] / 3
    # And what the sentence says is not forgotten:
    assert step[0] > 0.9


def test_the_prior_gives_scores_an_error_of_mean_square_one(users: np.ndarray) -> None:
    for power in (0.0, 0.5, 1.0):
        population = Population.of(users, power=power)
        errors = (users - population.mean_D) @ population.root_DD
        assert (errors**2).sum(1).mean() == pytest.approx(1.0, rel=1e-4)


def test_without_strength_the_query_stays(users: np.ndarray) -> None:
    np.testing.assert_allclose(move(users, error=0.0), np.eye(D)[0], atol=1e-6)


def test_seeds_move_the_query_their_way_the_more_the_stronger(users: np.ndarray) -> None:
    weak, strong = move(users, error=0.05), move(users, error=1.0)
    assert 0 < weak[1] < strong[1]
    assert weak[0] > strong[0] > 0


def test_where_users_lie_and_how_long_they_are_does_not_matter(users: np.ndarray) -> None:
    moved = users * 7 - 100
    population, far = Population.of(users, power=0.5), Population.of(moved, power=0.5)
    zero_shot = np.ones(D)
    args = {"doubts": sure(0.3)}
    one = posterior_query(zero_shot, users[:5], users[5:10], population, **args)
    other = posterior_query(zero_shot, moved[:5], moved[5:10], far, **args)
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_users_who_are_all_alike_change_nothing() -> None:
    users = np.ones((9, D), np.float32)
    query = posterior_query(
        np.ones(D), users[:3], users[3:6], Population.of(users, power=0.5),
    )  # fmt: skip
    np.testing.assert_allclose(query, np.ones(D), atol=1e-5)


def test_a_large_population_is_sampled_evenly() -> None:
    rows = np.arange(3 * MAX_SAMPLE, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    population = Population.of(rows, power=0.0)
    assert population.mean_D[0] == pytest.approx(rows.mean(), abs=2)


# --- which reading is meant


def test_readings_are_weighed_by_the_chance_that_just_these_seeds_are_positive() -> None:
    """Against the sum over all sets of seeds, written out."""
    rng = np.random.default_rng(3)
    seeds, shares = rng.normal(size=(5, 4)), np.array([0.1, 0.2, 0.3, 0.4])
    expected = np.zeros(4)
    for strength in SELECTION:
        odds = seeds - strength * (seeds @ shares)[:, None]
        sets = [np.exp(odds[list(some)].sum(0)) for some in combinations(range(5), 3)]
        expected += shares * np.exp(odds[:3].sum(0)) / np.sum(sets, 0)
    found = reading_posterior(shares, seeds[:3], seeds[3:])
    np.testing.assert_allclose(found, expected / expected.sum())


def test_seeds_move_shares_to_the_reading_that_tells_them_apart() -> None:
    positives, shares = np.array([[3.0, 0.0]] * 5), np.array([0.2, 0.8])
    found = reading_posterior(shares, positives, -positives)
    assert found[0] > 0.9
    many = reading_posterior(shares, np.repeat(positives, 100, 0), -np.repeat(positives, 100, 0))
    assert many[0] == pytest.approx(1.0) and np.isfinite(many).all()


def test_of_many_seeds_an_even_sample_is_read() -> None:
    rng = np.random.default_rng(5)
    positives, negatives = rng.normal(size=(2, 3 * MAX_SEEDS, 2)) * 0.1
    shares = np.array([0.5, 0.5])
    found = reading_posterior(shares, positives, negatives)
    np.testing.assert_array_equal(found, reading_posterior(shares, positives[::3], negatives[::3]))
    assert not np.allclose(found, reading_posterior(shares, positives[1::3], negatives[1::3]))


def test_what_tells_no_seed_from_another_moves_nothing() -> None:
    """Neither a reading by which all score alike, nor how many seeds of each sort there are."""
    shares = np.array([0.3, 0.7])
    found = reading_posterior(shares, np.full((7, 2), [1.0, 9.0]), np.full((2, 2), [1.0, 9.0]))
    np.testing.assert_allclose(found, shares)


def test_negatives_picked_for_their_score_do_not_speak_against_the_right_reading() -> None:
    """Buyers by the first reading; the negatives are those others whom the demand likes best."""
    rng = np.random.default_rng(0)
    shares = np.array([0.7, 0.3])
    kept = []
    for _ in range(40):
        scores = rng.normal(size=(2_000, 2))
        buys = rng.random(2_000) < 1 / (1 + np.exp(2 - scores[:, 0]))
        likely = np.argsort(-np.where(buys, -np.inf, scores @ shares))[:100]
        negatives = scores[rng.choice(likely, 5, replace=False)]
        positives = scores[rng.choice(np.flatnonzero(buys), 5, replace=False)]
        kept.append(reading_posterior(shares, positives, negatives)[0])
    assert np.mean(kept) > 0.77  # .73 if they are taken as drawn at random
