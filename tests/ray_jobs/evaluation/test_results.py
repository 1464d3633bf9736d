"""Results are reused only when everything they depend on is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ray_jobs.evaluation import results
from ray_jobs.evaluation.results import Results, plain


def test_a_finished_result_is_reused_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def work() -> dict[str, float]:
        done.append(1)
        return {"auc": float("nan"), "n": len(done)}

    ours = Results(tmp_path, ["snapshot 1"])
    first = ours.of("probe fused", [5], work)
    assert first == {"auc": None, "n": 1}  # the same whether it was measured or read
    assert Results(tmp_path, ["snapshot 1"]).of("probe fused", [5], work) == first
    ours.of("probe fused", [3], work)
    Results(tmp_path, ["snapshot 2"]).of("probe fused", [5], work)
    monkeypatch.setattr(results, "code_version", lambda: "other")
    ours.of("probe fused", [5], work)
    assert len(done) == 4


def test_a_damaged_result_is_measured_again(tmp_path: Path) -> None:
    ours = Results(tmp_path, [])
    ours.of("x", [], lambda: 1)
    (file,) = (tmp_path / "results").iterdir()
    file.write_text('{"au')
    assert ours.of("x", [], lambda: 2) == 2


def test_plain_values() -> None:
    value = {"a": np.float64("nan"), 1: (np.int64(2), np.array([0.5])), "b": np.bool_(True)}
    assert plain(value) == {"a": None, "1": [2, [0.5]], "b": True}
