"""Calibration on behaviours whose true probabilities are known (made-up)."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from encoders.calibration import LEAST_BUYERS, Calibration, PastBuyers, Probabilities
from encoders.calibration_fit import Evidence, fit

USERS = 1_500


def world(seed: int, *, behaviours: int = 40, sharpness: float = 0.6) -> Evidence:
    """Behaviours whose scores are ``1 / sharpness`` times too sharp, and drift between windows."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(-4.0, 0.0, behaviours)
    truth = rate + rng.normal(0, 1.2, (USERS, behaviours))
    drift = rng.normal(0, 0.15, behaviours)
    happened = rng.random((USERS, behaviours)) < expit(truth + drift)
    windows = [(rng.random((USERS, behaviours)) < expit(truth)).sum(0) for _ in range(3)]
    past = tuple(
        PastBuyers(USERS, float(last), float(a + b) / 2)
        for last, a, b in zip(*windows, strict=True)
    )
    names = tuple(f"behaviour {seed}-{k}" for k in range(behaviours))
    scores = (truth - rate) / sharpness + rng.normal(0, 3, behaviours)  # level says nothing
    return Evidence(f"2017-0{seed + 1}-01", names, scores.astype(np.float32), happened, past)


@pytest.fixture(scope="module")
def learnt() -> Calibration:
    return fit([world(1), world(2)], horizon_days=28)


def stated(learnt: Calibration, new: Evidence) -> list[tuple[int, Probabilities]]:
    told = [(s, learnt.probabilities(new.scores_NS[:, s], past)) for s, past in enumerate(new.past)]
    return [(s, likely) for s, likely in told if likely.grounded]


def calibration_error(p: np.ndarray, happened: np.ndarray) -> float:
    at = np.minimum((p * 10).astype(int), 9)
    bins = [at == k for k in range(10) if (at == k).any()]
    return float(sum(abs(p[b].mean() - happened[b].mean()) * b.sum() for b in bins) / len(p))


def test_unseen_behaviours_are_calibrated_and_far_better_than_raw(learnt: Calibration) -> None:
    new = world(3)
    told = stated(learnt, new)
    mine = [calibration_error(likely.p_N, new.labels_NS[:, s]) for s, likely in told]
    raw = [calibration_error(expit(new.scores_NS[:, s]), new.labels_NS[:, s]) for s, _ in told]
    assert len(told) > 25
    assert np.mean(mine) < 0.03 < 0.1 < np.mean(raw)


def test_the_order_of_users_is_kept(learnt: Calibration) -> None:
    new = world(3)
    for s, likely in stated(learnt, new)[:5]:
        order = np.argsort(new.scores_NS[:, s], kind="stable")
        assert (np.diff(likely.p_N[order]) >= 0).all()


def test_a_level_added_to_all_scores_changes_nothing(learnt: Calibration) -> None:
    new = world(3)
    s, likely = stated(learnt, new)[0]
    moved = learnt.probabilities(new.scores_NS[:, s] + 5.0, new.past[s])
    np.testing.assert_allclose(moved.p_N, likely.p_N, atol=1e-4)


def test_four_of_five_intervals_hold(learnt: Calibration) -> None:
    inside = []
    for seed in (3, 4, 5):
        new = world(seed)
        for s, likely in stated(learnt, new):
            best = np.argsort(-new.scores_NS[:, s])
            for size in (150, USERS):
                expected, low, high = likely.buyers(best[:size])
                assert 0 <= low <= expected <= high <= size
                inside.append(low <= new.labels_NS[best[:size], s].sum() <= high)
    assert 0.7 <= np.mean(inside) <= 0.92


def test_an_interval_is_wider_than_chance_alone(learnt: Calibration) -> None:
    new = world(3)
    _, likely = stated(learnt, new)[0]
    rows = np.arange(USERS)
    _, low, high = likely.buyers(rows)
    _, sure_low, sure_high = replace(likely, spread=0.0, tilt=0.0).buyers(rows)
    assert learnt.spread > 0.05
    assert high - low > sure_high - sure_low


def test_it_abstains_without_ground(learnt: Calibration) -> None:
    scores = np.random.default_rng(0).normal(size=USERS)
    rare = PastBuyers(USERS, LEAST_BUYERS - 1.0)
    for given, past, why in (
        (scores, None, "no behaviour"),
        (scores, rare, "are needed"),
        (scores, PastBuyers(USERS, 0.99 * USERS), "has seen"),
        (np.ones(USERS), PastBuyers(USERS, 300.0), "apart"),
    ):
        likely = learnt.probabilities(given, past)
        assert not likely.grounded and likely.note is not None and why in likely.note


def test_nothing_to_learn_from_is_said() -> None:
    few = replace(world(1), past=tuple(PastBuyers(USERS, 3.0) for _ in range(40)))
    with pytest.raises(ValueError, match="at least 20 past buyers"):
        fit([few], horizon_days=28)


def test_json_gives_it_back_and_damage_is_seen(learnt: Calibration) -> None:
    content = learnt.to_json()
    assert Calibration.from_json(content) == learnt
    document = json.loads(content)
    for broken in ({**document, "rate": [0.0]}, {**document, "spread": -1}, {"rate": [0, 1, 0]}):
        with pytest.raises((ValueError, KeyError, TypeError)):
            Calibration.from_json(json.dumps(broken).encode())


def test_loyalty_is_the_log_odds_ratio_of_two_windows() -> None:
    past = PastBuyers(100, last=20.0, before=22.0, previous=30.0, again=12.0)
    kept, came = 12.5 / 18.5, 8.5 / 62.5  # of 30 who did it before, and of 70 who did not
    assert past.loyalty == pytest.approx(np.log(kept / came))
    assert PastBuyers(100, 20.0).loyalty == 2.0  # nothing known: as usual


def test_scores_of_what_people_are_loyal_to_tell_more() -> None:
    """Half of the behaviours are twice as sharp as their scores, and twice as loyal."""

    def loyal_world(seed: int) -> Evidence:
        plain = world(seed)
        rng = np.random.default_rng(seed + 100)
        loyal = np.arange(len(plain.names)) % 2 == 0
        truth = plain.scores_NS * np.where(loyal, 0.9, 0.45) - 2.0
        truth -= truth.mean(0) + 2.0
        happened = rng.random(truth.shape) < expit(truth)
        past = tuple(
            replace(each, last=n, before=n, previous=n, again=n * (0.8 if is_loyal else 0.3))
            for each, n, is_loyal in zip(
                plain.past, happened.sum(0).astype(float), loyal, strict=True
            )
        )
        return replace(plain, labels_NS=happened, past=past)

    learnt = fit([loyal_world(1), loyal_world(2)], horizon_days=28)
    new = loyal_world(3)
    told = {s: likely.p_N.std() for s, likely in stated(learnt, new)}
    assert learnt.gain[3] > 0.1
    for s, likely in stated(learnt, new):
        assert calibration_error(likely.p_N, new.labels_NS[:, s]) < 0.05
    assert np.mean([told[s] for s in told if s % 2 == 0]) > 1.3 * np.mean(
        [told[s] for s in told if s % 2]
    )


def test_few_buyers_draw_a_score_towards_the_rate(learnt: Calibration) -> None:
    scores = np.random.default_rng(0).normal(size=USERS)
    open_to_all = replace(learnt, lowest=0.001)
    few, many = (
        open_to_all.probabilities(scores, PastBuyers(size * USERS, size * 21.0, size * 21.0)).p_N
        for size in (1, 1_000)
    )
    assert few.mean() == pytest.approx(many.mean(), rel=0.05)
    spread = [np.ptp(np.log(p / (1 - p))) for p in (few, many)]
    assert spread[0] == pytest.approx(spread[1] / (1 + (20 / 21) ** 2), rel=0.05)


def test_a_calibration_from_before_loyalty_still_speaks(learnt: Calibration) -> None:
    old = json.loads(learnt.to_json())
    old["gain"] = old["gain"][:3]
    read = Calibration.from_json(json.dumps(old).encode())
    assert read.gain == (*learnt.gain[:3], 0.0)
