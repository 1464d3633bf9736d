"""The loop itself: the rate of each parameter at each step, and what a stage took."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from encoders import checkpoint
from ray_jobs import loop, objectives, presets, train


def test_learning_rate_warms_up_and_fades() -> None:
    settings = presets.Training(steps=100, batch_size=8, warmup_steps=10)
    rates = [loop._schedule(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates.index(max(rates)) in (8, 9)
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert 0 < rates[-1] < 0.001


def test_pretrained_parts_learn_at_their_own_rate(trained: Any) -> None:
    model, _ = checkpoint.load(trained.checkpoint("alignment"))
    settings = presets.Training(steps=1, batch_size=8, encoder_rate=0.1)
    fast, slow = loop._groups(model, settings)
    assert (fast["rate"], slow["rate"]) == (1.0, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    parts = [{names[id(p)].split(".")[0] for p in group["params"]} for group in (fast, slow)]
    assert parts[0] == {"habits", "text", "base_rate", "fit_scale", "log_scale"}
    assert parts[1] == {"behaviour", "tabular", "search", "fusion", "text"}
    assert {names[id(p)].split(".")[1] for p in fast["params"] if "text" in names[id(p)]} == {
        "of_text", "project"}  # fmt: skip
    learning = sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert sorted(id(p) for group in (fast, slow) for p in group["params"]) == learning


def test_an_encoder_alone_has_one_group(trained: Any) -> None:
    model, _ = checkpoint.load(trained.checkpoint("tabular"))
    (group,) = loop._groups(model, presets.Training(steps=1, batch_size=8, encoder_rate=0.1))
    assert group["rate"] == 1.0


def test_stages_on_the_same_workers_have_their_own_seconds(
    copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stage's batches are slow: what it takes is not in the other's record."""
    build_objective, pause = objectives.build, 0.2

    def build(spec: objectives.StageSpec, world: int) -> objectives.Objective:
        made = build_objective(spec, world)
        if spec.stage != "tabular":
            return made
        return replace(made, batch=lambda *at: (time.sleep(pause), made.batch(*at))[1])

    monkeypatch.setattr(objectives, "build", build)
    copy.forget("tabular", "search")
    started = time.perf_counter()
    records = train.train_stages(copy.shared(), {"tabular": {}, "search": {}})
    elapsed = time.perf_counter() - started
    slow, quick = records["tabular"], records["search"]
    assert slow["step_seconds"] >= 6 * pause and quick["step_seconds"] > 0
    for record in (slow, quick):
        assert record["step_seconds"] <= record["seconds"] + 0.05, "rounded to tenths"
    assert slow["seconds"] + quick["seconds"] <= elapsed + 0.1
    record = copy.train("tabular", preset="still")
    assert record["step_seconds"] == 0 and record["samples_seen"] == 0
