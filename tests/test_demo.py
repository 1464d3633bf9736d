"""The demo as a newcomer runs it, on real receipts, and the quality of what it built."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow, pytest.mark.ray, pytest.mark.milvus, pytest.mark.timeout(1800),
]  # fmt: skip


def _run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace the demo has built, with what it printed beside it."""
    home: Path = tmp_path_factory.mktemp("demo") / "ws"
    out = _run("examples/demo.py", "--workspace", str(home))
    (home / "demo.out").write_text(out)
    return home


def test_it_tells_the_whole_story(workspace: Path) -> None:
    out = (workspace / "demo.out").read_text()
    assert out.rstrip().endswith("demo: ok")
    assert out.count("by milvus, scores") >= 3
    assert "Zero-shot AUC" in out and "service stopped" in out
    assert (workspace / "reports" / "embedding_map.png").stat().st_size > 20_000


def test_it_targets_better_than_chance_by_far(workspace: Path, tmp_path: Path) -> None:
    _run("-m", "ray_jobs.evaluate", "--workspace", str(workspace), "--out", str(tmp_path),
         "--only", "zero-shot")  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    groups = report["zero_shot"]["sentence"]
    # Preset `quick` has .846 and .67 here (docs/log.md, "Fewer steps"); seeds are up to .005 apart.
    assert groups["A"]["auc"] >= 0.83
    assert groups["B"]["auc"] >= 0.65


def test_a_second_run_reuses_every_stage(workspace: Path) -> None:
    out = _run("-m", "ray_jobs.pipeline", "--workspace", str(workspace), "--as-of", "2017-09-11",
               "--preset", "quick", "--workers", "2")  # fmt: skip
    for stage in ("ingest", "features", "samples", "train-behaviour", "train-tabular",
                  "train-alignment", "embed"):  # fmt: skip
        assert f"{stage}: reused" in out
