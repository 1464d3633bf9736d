"""The section of planted worlds: what is built, and figures of scorers that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.sources import read_source
from feature_repo.sources.synthetic_planted import truth
from feature_repo.sources.synthetic_world import PLANTS
from feature_repo.transforms import open_tables
from ray_jobs.evaluation import planted
from ray_jobs.evaluation.planted import PlantedWorld, buyers, mean_auc, worlds


def test_every_modality_is_planted_and_one_world_shows_nothing() -> None:
    listed = worlds(500)
    assert [(w.plant, w.removed) for w in listed[:-1]] == [(p, False) for p in PLANTS]
    assert listed[-1].removed and all(w.world.users == 500 for w in listed)


def test_without_its_signs_every_planted_world_is_the_same() -> None:
    names = ("events", "searches", "profiles")
    first, *others = (read_source(PlantedWorld(p, removed=True, users=200).spec) for p in PLANTS)
    assert all(getattr(each, n) == getattr(first, n) for each in others for n in names)


def test_the_oracle_is_scored_on_the_buyers_of_the_next_four_weeks() -> None:
    one = PlantedWorld("search", removed=True, users=1_000)
    tables = read_source(one.spec)
    names = ("events", "items", "searches", "profiles", "exposures", "segments")
    con = open_tables({name: getattr(tables, name) for name in names})
    bought = buyers(con, one, [f"s{n}" for n in range(1_000)])
    held = truth(one.spec).held_at(one.world.default_as_of)
    assert 0.015 < bought.mean() < 0.035
    assert 0.72 < mean_auc(held, bought) < 0.88
    noise = np.random.default_rng(0).random(bought.shape)
    assert mean_auc(noise, bought) == pytest.approx(0.5, abs=0.06)


@pytest.mark.slow
def test_a_world_is_built_trained_on_and_asked(tmp_path: Path, bench: Any) -> None:
    one = PlantedWorld("search", removed=False, users=200)
    found = planted.measure(one, tmp_path, bench.tiny_preset())
    assert found["positives"] > 10 and 0.6 < found["oracle"] <= 1
    assert 0.3 < found["name"] < 0.8 and 0.3 < found["free words"] < 0.8
    told = found["decoys"]
    assert {"sentence", "ours", "logistic regression", "oracle"} <= set(told)
    figures = ("auc", "precision", "holders", "apart")
    assert all(0 <= row[figure] <= 1 for row in told.values() for figure in figures)
    assert all(row["ours minus this"]["low"] <= row["ours minus this"]["high"]
               for method, row in told.items() if method != "ours")  # fmt: skip
    assert planted.measure(one, tmp_path, bench.tiny_preset()) == found
