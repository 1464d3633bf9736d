"""What a snapshot is asked: never about what its model has read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import schema
from feature_repo.settings import Workspace
from feature_repo.sources import complete_journey
from ray_jobs.build_features import Dataset
from ray_jobs.evaluation.bench import Bench, Found
from ray_jobs.evaluation.probe_table import Row, measure
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.subject import Subject
from ray_jobs.one4all.tasks import Tasks

T = datetime(2017, 9, 11, tzinfo=UTC)


@pytest.mark.parametrize("demographics", [False, True])
def test_demographics_are_labels_or_inputs_but_not_both(
    shop: Callable[..., dict[str, pa.Table]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    demographics: bool,
) -> None:  # fmt: skip
    tables = shop()
    when = tables["events"]["timestamp"][0].as_py()
    known = pa.Table.from_pylist(
        [{"user_id": f"h{n}", "timestamp": when, "known_at": when, "continuous": [],
          "categorical": [("kids_count", str(n % 2))]} for n in range(40)],
        schema=schema.CANONICAL["profiles"],
    )  # fmt: skip
    monkeypatch.setattr(complete_journey, "profiles", lambda: known)
    held = {**tables, "profiles": known} if demographics else tables
    for name, columns in schema.CANONICAL.items():
        pq.write_table(held.get(name, columns.empty_table()), tmp_path / f"{name}.parquet")
    dataset = Dataset("complete-journey", demographics, "Complete Journey", False, ".")
    manifest: Any = SimpleNamespace(as_of=T, horizon_days=28)
    subject = Subject(Workspace(tmp_path), manifest, dataset)

    groups = {task.group for task in subject.tasks}
    assert groups >= {"A", "C", "D"} and ("E" in groups) != demographics
    assert ("kids" in Tasks.of(subject).listed()) != demographics
    users = [str(user) for user in subject.protocol.everyone]
    row = Row(lambda: np.random.default_rng(0).normal(size=(len(users), 3)))
    assert set(measure(row, users, subject.tasks, 1)) == {*groups, "dim"}
    head = Bench(subject, Results(tmp_path, []), Found()).head
    assert head["demographics"] == demographics, "the report tells why"
