"""docs/train-on-embeddings.md, run as it stands, on real receipts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_repo.settings import Workspace
from feature_repo.transforms import micros, open_tables
from ray_jobs.build_features import read_dataset

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "train-on-embeddings.md"

pytestmark = [pytest.mark.slow, pytest.mark.milvus, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the page's shell commands ran."""
    home = tmp_path_factory.mktemp("team")
    for line in re.findall(r"^python -m .*$", PAGE.read_text(), re.MULTILINE):
        command = [sys.executable, *shlex.split(line)[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        subprocess.run(command, cwd=home, env=environment, check=True)
    return home


def labels(place: Workspace) -> pd.DataFrame:
    """Who spends more than 100 dollars in the four weeks after four dates."""
    con = open_tables(place.root / read_dataset(place).tables)
    found = []
    for date in ("2017-06-12", "2017-07-10", "2017-08-07", "2017-09-04"):
        start = datetime.fromisoformat(date).replace(tzinfo=UTC)
        rows = con.sql(
            """SELECT user_id, coalesce(sum(amount) FILTER (
                   epoch_us(timestamp) >= $t AND epoch_us(timestamp) < $end), 0) > 100 AS label
            FROM known_events WHERE user_id IN (
                SELECT user_id FROM known_events WHERE seen < $known)
            GROUP BY user_id ORDER BY user_id""",
            params={"t": micros(start), "end": micros(start + timedelta(days=28)),
                    "known": micros(datetime(2017, 6, 12))},
        ).fetchall()  # fmt: skip
        found += [{"user_id": u, "event_timestamp": start, "label": y} for u, y in rows]
    return pd.DataFrame(found)


def test_the_page_runs_and_its_scores_are_features(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    names: dict[str, Any] = {"labels": labels(Workspace(home / "workspace" / "training"))}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["test"] > 0.8
    assert set(names["model"].tried) == {"0.0001", "0.0003", "0.001"}
    parts = [set(names["people"][each]) for each in vars(names["part"]).values()]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    # Embeddings differ from date to date: the join is point-in-time.
    rows = names["rows"]
    one = rows[rows["user_id"] == rows["user_id"][0]]
    assert len(one) == 4 and len({tuple(np.round(v, 6)) for v in one["embedding"]}) > 1
