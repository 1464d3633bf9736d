"""Training of downstream models: splits without shared users, early stopping, both objectives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.transfer import Inputs, UMlp
from feature_repo.errors import InputError
from ray_jobs import downstream
from ray_jobs.downstream import Binary, Fitting, Recommendation, Split, fit, item_places, predict

FAST = Fitting(learning_rates=(1e-3, 1e-2), batch_size=32, epochs=12, patience=3)


def world(num: int = 200, seed: int = 0) -> tuple[Inputs, np.ndarray]:
    """Users whose first coordinate, with noise, tells the label."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num, 6)).astype(np.float32)
    return Inputs(torch.from_numpy(vectors)), vectors[:, 0] + 0.2 * rng.normal(size=num) > 0.5


def build(out: int) -> UMlp:
    return UMlp(embedding_dim=6, out=out)


def test_nobody_is_in_two_parts_and_five_repeats_test_everybody_once() -> None:
    groups = np.arange(103) % 3
    tested: list[int] = []
    for repeat in range(5):
        split = Split.draw(groups, repeat)
        parts = np.concatenate([split.train, split.valid, split.test])
        assert sorted(parts) == list(range(103))
        for part in (split.train, split.valid, split.test):
            shares = np.bincount(groups[part]) / len(part)
            assert np.allclose(shares, 1 / 3, atol=0.06)
        tested += list(split.test)
    assert sorted(tested) == list(range(103))
    assert not np.array_equal(Split.draw(groups, 5).test, Split.draw(groups, 0).test)


def test_a_planted_label_is_learnt_and_the_best_rate_wins() -> None:
    inputs, labels = world()
    objective, split = Binary(labels), Split.draw(labels.astype(int), 0)
    fitted = fit(objective, build, inputs, split, FAST)
    test = objective.quality(predict(fitted.model, inputs, split.test), split.test)
    assert test > 0.9
    assert set(fitted.tried) == {"0.001", "0.01"}
    assert fitted.quality == max(fitted.tried.values())
    valid = predict(fitted.model, inputs, split.valid)
    assert objective.quality(valid, split.valid) == pytest.approx(fitted.quality)


def test_training_repeats_bit_for_bit_and_leaves_test_users_alone() -> None:
    inputs, labels = world()
    split = Split.draw(labels.astype(int), 1)
    one = fit(Binary(labels), build, inputs, split, FAST, seed=3)
    turned = labels.copy()
    turned[split.test] = ~turned[split.test]
    other = fit(Binary(turned), build, inputs, split, FAST, seed=3)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_it_stops_when_validation_no_longer_improves() -> None:
    inputs, labels = world()

    class Worse(Binary):
        count = 0

        def quality(self, logits: np.ndarray, rows: np.ndarray) -> float:
            Worse.count += 1
            return -Worse.count

    fitted = fit(Worse(labels), build, inputs, Split.draw(labels.astype(int), 0),
                 Fitting(learning_rates=(1e-3,), epochs=20, patience=4))  # fmt: skip
    assert fitted.epochs == 1 and Worse.count == 5


def test_what_cannot_be_learnt_from_is_said() -> None:
    inputs, labels = world(20)
    with pytest.raises(InputError, match="positives and negatives"):
        fit(Binary(np.ones(20, bool)), build, inputs, Split.draw(labels.astype(int), 0), FAST)
    nobody = Split(*(np.zeros(0, np.int64) for _ in range(3)))
    with pytest.raises(InputError, match="users to train on"):
        fit(Binary(labels), build, inputs, nobody, FAST)


def test_users_find_their_items() -> None:
    """Users of two tastes, items whose text vectors tell the taste."""
    rng = np.random.default_rng(0)
    taste = np.arange(120) % 2
    vectors = rng.normal(size=(120, 6)).astype(np.float32)
    vectors[:, 0] += 3 * (2 * taste - 1)
    texts = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    texts[:, 0] = torch.tensor([3.0, -3.0]).repeat(10)
    taken = (np.arange(20) % 2 == taste[:, None]) & (rng.random((120, 20)) < 0.3)
    taken[np.arange(120), taste] = True
    inputs, split = Inputs(torch.from_numpy(vectors)), Split.draw(taste, 0)
    fitted = fit(Recommendation(taken, texts), build, inputs, split, FAST)
    logits = predict(fitted.model, inputs, split.test)
    _, places = item_places(logits, taken[split.test])
    chance = np.mean([1 / p for p in range(1, 18)])
    assert places.reciprocal().mean() > 2 * chance


def test_places_among_sampled_items_are_those_of_the_slow_reference() -> None:
    rng = np.random.default_rng(1)
    logits, taken = rng.normal(size=(4, 30)), rng.random((4, 30)) < 0.2
    user, places = item_places(logits, taken)
    slow = [
        (u, sum(logits[u, j] > logits[u, i] for j in range(30) if not taken[u, j]))
        for u in range(4) for i in range(30) if taken[u, i]
    ]  # fmt: skip
    assert [(u, a) for u, a in zip(user, places.above, strict=True)] == slow
    _, sampled = item_places(logits, taken, among=5)
    assert (sampled.above <= np.minimum(places.above, 5)).all() and sampled.above.any()
    best = np.where(taken, logits - 100, logits)  # below every other: all that are drawn count
    assert (item_places(best, taken, among=5)[1].above == 5).all()
    assert (item_places(best, taken, among=99)[1].above == (~taken).sum(1)[user]).all()
    known = (rng.random((4, 30)) < 0.5) & ~taken  # no candidates
    candidates = (~taken & ~known).sum(1)[user]
    assert (item_places(best, taken, known)[1].above == candidates).all()
    assert (item_places(best, taken, known, among=99)[1].above == candidates).all()


def test_vectors_are_scaled_as_a_whole() -> None:
    x = np.array([[1.0, 10.0], [3.0, 30.0]])
    got = downstream.scaled(x)
    assert isinstance(got, Tensor) and torch.allclose(got.mean(0), torch.zeros(2))
    assert torch.allclose(got[:, 1], 10 * got[:, 0])
    assert torch.equal(downstream.scaled(np.ones((3, 2))), torch.zeros(3, 2))
