"""How an outlook's trees are grown: from what is known, and only where enough is."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from encoders.forest import Forest
from encoders.outlook import OutlookConfig
from ray_jobs import outlook
from ray_jobs.presets import best

SMALL = OutlookConfig(trees=20, leaves=7, depth=4, learning_rate=0.2)


def interplay(seed: int, num: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Totals, and an outcome that neither of two totals tells alone."""
    x = np.random.default_rng(seed).normal(size=(num, 4)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int8)


def right(roots: list[dict[str, object]], seed: int) -> float:
    forest = Forest(num=1, trees=SMALL.trees, leaves=SMALL.leaves, depth=SMALL.depth)
    forest.set(0, cast(Any, roots))
    x, label = interplay(seed)
    return float(((forest(torch.from_numpy(x))[:, 0].numpy() > 0) == (label == 1)).mean())


def test_an_interplay_of_totals_is_found() -> None:
    x, label = interplay(0)
    assert right(outlook.grow(x, label, SMALL, seed=0), seed=1) > 0.9


def test_what_is_unknown_teaches_nothing() -> None:
    x, label = interplay(0)
    more, _ = interplay(2)
    alone = outlook.grow(x, label, SMALL, seed=0)
    unknown = np.full(len(more), -1, np.int8)
    both = outlook.grow(
        np.concatenate([x, more]), np.concatenate([label, unknown]), SMALL, seed=0
    )  # fmt: skip
    assert alone == both


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What a model is given axes for."""
    x, _ = interplay(0)
    monkeypatch.setattr(outlook, "totals", lambda *_: torch.from_numpy(x))
    monkeypatch.setattr(outlook.feedback, "joint", lambda *_: torch.zeros(len(x), 3))
    return []


def test_outcomes_that_hardly_anybody_shows_or_misses_get_no_axis(
    learnt: list[tuple[str, ...]],
) -> None:
    _, label = interplay(0)
    rare = np.where(np.arange(len(label)) < SMALL.least - 1, 1, 0).astype(np.int8)
    names = [("nothing", 14), ("a lot", 28), ("coupon", 56)]
    outcomes = SimpleNamespace(names=names, label_NO=np.stack([label, rare, 1 - rare], 1))
    model = SimpleNamespace(habits=True, learn_outlook=lambda config, roots, *_: learnt.append(
        (*config.sentences, str(len(roots)))
    ))  # fmt: skip
    rows = np.arange(len(label))
    arguments = cast(Any, (model, None, replace(best(), outlook=SMALL), outcomes, rows, rows, 0))
    outlook.fit(*arguments)
    assert learnt == [("will not shop at all in the next two weeks", "1")]
    model.habits = None
    outlook.fit(*arguments)
    assert len(learnt) == 1
