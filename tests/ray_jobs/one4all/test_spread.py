"""Parts of the suite in processes of their own: they leave what the sections look for."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs import evaluate
from ray_jobs.build_features import Dataset
from ray_jobs.evaluate import Evaluate
from ray_jobs.evaluation.ablations import Variant
from ray_jobs.one4all import compare, pretraining
from ray_jobs.presets import Training

TINY = Variant("tiny", {
    "shopper_bert.dim": 16, "shopper_bert.layers": 1, "shopper_bert.heads": 2,
    "shopper_bert.length": 8, "shopper_bert.stretches": 1, "shopper_bert.words": 4,
    "stages": {"shopper_bert": Training(steps=2, batch_size=8)},
})  # fmt: skip


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two parts at a time need two CPUs")
def test_parts_at_a_time_are_found_by_their_sections(
    market: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    when = datetime(2017, 9, 11, tzinfo=UTC)
    workspace, name = Workspace(tmp_path / "w"), "complete-journey"
    pretraining.pretrain(workspace.root, name, market, when, TINY)
    (snapshot,) = SnapshotStore(workspace).list()
    dataset = Dataset(name, True, name, False, "tables/given")
    workspace.dataset_file.write_text(json.dumps(asdict(dataset)))
    asked: dict[str, Any] = {
        "workspace": str(tmp_path / "w"), "out": str(tmp_path / "out"), "snapshot": snapshot.id,
        "suite": "one4all", "only": "tasks,fine-tuning", "tasks": "lapse,next basket",
        "repeats": 1, "epochs": 1, "length": 8,
    }  # fmt: skip
    found = evaluate.run(Evaluate(**asked, parallel=2))
    assert set(found["tasks"]) == {"lapse", "next basket"}
    assert set(found["fine_tuning"]) == {"lapse"}
    report = json.loads((tmp_path / "out" / "report.json").read_bytes())

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(compare, "fit", never)
    evaluate.run(Evaluate(**asked, parallel=1))
    assert json.loads((tmp_path / "out" / "report.json").read_bytes()) == report
