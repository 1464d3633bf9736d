"""Planted hard negatives: who they are, and that a method is scored on everybody and on them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from encoders.rewriting import as_it_stands
from ray_jobs.evaluation import decoys
from ray_jobs.evaluation.few_shot_methods import Demand, Seeds

TOPICS = ("hiking", "baking", "chess")
USERS = 600


def world() -> tuple[np.ndarray, np.ndarray]:
    """Who holds what, and who buys: a third of the holders of each topic."""
    rng = np.random.default_rng(0)
    held = rng.random((USERS, len(TOPICS))) < 0.4
    return held, held & (rng.random(held.shape) < 1 / 3)


def test_seeds_are_buyers_of_the_one_and_holders_of_the_other_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, bought = world()
    asked: list[str] = []

    def both(demand: Demand, users: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        """The sentence: it likes holders of either topic alike."""
        k = len(asked)
        asked.append(demand.text)
        other = (k + 1) % len(TOPICS)
        for seeds in draws:
            assert bought[seeds.positives, k].all()
            assert held[seeds.negatives, other].all()
            assert not (held | bought)[seeds.negatives, k].any()
        return np.tile((users[:, k] | users[:, other]).astype(float), (len(draws), 1))

    def told(demand: Demand, users: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        """What seeds tell: the first topic is meant."""
        k = [f"will buy {name} or" in demand.text for name in TOPICS].index(True)
        return np.tile(users[:, k].astype(float), (len(draws), 1))

    def remembers(demand: Demand, users: np.ndarray, draws: list[Seeds]) -> np.ndarray:
        """Its seeds, and nobody else."""
        scores = np.zeros((len(draws), len(users)))
        for row, seeds in zip(scores, draws, strict=True):
            row[seeds.positives], row[seeds.negatives] = 1, -1
        return scores

    ways = {"both": both, "ours": told, "remembers": remembers}
    monkeypatch.setattr(decoys, "methods", lambda *_, **__: ways)
    encoder: Any = SimpleNamespace(read=as_it_stands)
    found = decoys.measure(encoder, held, held, bought, TOPICS)
    assert asked[0] == "will buy hiking or baking in the next four weeks" and len(asked) == 3
    assert set(found) == {"both", "ours", "remembers", "oracle"}
    assert found["remembers"]["auc"] == found["remembers"]["apart"] == 0.5, "seeds are left out"
    assert found["ours"]["apart"] == 1.0 and found["both"]["apart"] == 0.5
    assert found["ours"]["auc"] > found["both"]["auc"] > 0.5
    assert found["ours"]["precision"] > found["both"]["precision"]
    assert found["ours"]["holders"] == found["oracle"]["holders"] == 1.0 > found["both"]["holders"]
    gain = found["both"]["ours minus this"]
    assert 0 < gain["low"] < gain["mean"] < gain["high"]
    assert found["oracle"]["ours minus this"]["mean"] == 0.0


def test_a_topic_that_too_few_buy_is_left_out() -> None:
    nobody = np.zeros((USERS, 3), bool)
    encoder: Any = SimpleNamespace(read=as_it_stands)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoys, "methods", lambda *_, **__: {"any": None})
        assert decoys.measure(encoder, nobody, nobody, nobody, TOPICS) == {}
