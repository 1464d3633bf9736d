"""docs/embeddings-as-features.md, run as it stands, on real receipts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from feature_repo.settings import Workspace
from feature_repo.transforms import micros, open_tables
from ray_jobs.build_features import read_dataset

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "embeddings-as-features.md"

pytestmark = [pytest.mark.slow, pytest.mark.milvus, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace after the page's shell commands."""
    home = tmp_path_factory.mktemp("team")
    for line in re.findall(r"^python -m .*$", PAGE.read_text(), re.MULTILINE):
        command = [sys.executable, *shlex.split(line)[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        subprocess.run(command, cwd=home, env=environment, check=True)
    return home / "workspace" / "features"


def test_the_page_runs_and_the_embedding_predicts_september(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.parent.parent)
    place = Workspace(workspace)
    con = open_tables(place.root / read_dataset(place).tables)
    rows = con.sql(
        "SELECT user_id, epoch_us(timestamp), amount FROM events WHERE source = 'bill'"
    ).fetchall()
    known = con.sql(
        "SELECT DISTINCT user_id FROM known_events WHERE seen < $t ORDER BY user_id",
        params={"t": micros(datetime(2017, 6, 12))},
    ).fetchall()

    def labels(users: list[str], date: str) -> np.ndarray:
        start = datetime.fromisoformat(date)
        first, last = micros(start), micros(start + timedelta(days=28))
        spent: dict[str, float] = {}
        for user, at, amount in rows:
            if first <= at < last:
                spent[user] = spent.get(user, 0.0) + amount
        return np.array([spent.get(user, 0.0) > 100 for user in users])

    names: dict[str, object] = {"users": [row[0] for row in known], "labels": labels}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(known) > 2_300
    assert names["auc"] > 0.75
    assert names["newcomers"] == ["new"]
    assert names["newcomer"].shape == names["september"][:1].shape
    # The four dates differ: the join is point-in-time, not the latest row for all.
    vectors = names["vectors"]
    some = names["users"][:50]
    assert not np.array_equal(vectors(some, "2017-06-12"), vectors(some, "2017-09-04"))
