"""Scores handed back by downstream teams: a feature at every date, kept by later publishing."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_repo import schema
from feature_repo.errors import InputError
from feature_repo.scores import write_scores
from feature_repo.settings import Workspace
from feature_repo.snapshots import Manifest, SnapshotStore
from feature_repo.store import FeatureStore

PAGE = Path(__file__).parents[2] / "docs" / "train-on-embeddings.md"
AT = datetime(2024, 3, 4, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.fixture
def store(workspace: Workspace) -> FeatureStore:
    return FeatureStore(workspace)


def asked(users: list[str], at: datetime) -> pa.Table:
    columns = [pa.array(users), pa.array([at] * len(users), schema.TIMESTAMP)]
    return pa.table(columns, names=["user_id", "event_timestamp"])


def test_a_score_is_read_as_it_was_at_each_date_and_online(store: FeatureStore) -> None:
    view = write_scores(store, "big_spender", ["a", "b"], np.array([0.1, 0.2]), AT, space="s")
    write_scores(store, "big_spender", ["a"], np.array([0.9]), AT + WEEK, space="s")
    assert view == "big_spender_score"

    def at(moment: datetime) -> dict[str, float]:
        rows = store.history(view, asked(["a", "b"], moment), ["score"])
        return dict(zip(rows["user_id"].to_pylist(), rows["score"].to_pylist(), strict=True))

    assert at(AT - WEEK) == {}
    assert at(AT) == {"a": 0.1, "b": 0.2}
    assert at(AT + WEEK) == {"a": 0.9, "b": 0.2}
    assert store.materialize(view, AT + WEEK) == 2
    online = store.online(view, ["b", "a", "c"])
    assert online["user_id"].to_pylist() == ["b", "a"]
    assert online["score"].to_pylist() == [0.2, 0.9]
    assert online["space"].to_pylist() == ["s", "s"]


def test_a_date_written_again_is_replaced(store: FeatureStore) -> None:
    for score in (0.1, 0.7):
        view = write_scores(store, "x", ["a"], np.array([score]), AT, space="s")
    assert store.history(view, asked(["a"], AT), ["score"])["score"].to_pylist() == [0.7]


def test_publishing_keeps_the_view(store: FeatureStore, publish: Callable[..., object]) -> None:
    view = write_scores(store, "x", ["a"], np.array([0.5]), AT, space="s")
    publish(3, seed=0)
    store.apply()
    assert store.history(view, asked(["a"], AT), ["score"])["score"].to_pylist() == [0.5]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "Big Spender"}, "name: expected lower-case words"),
        ({"scores": np.array([0.1])}, "scores: expected 2 finite numbers"),
        ({"scores": np.array([0.1, np.nan])}, "with 1 not finite"),
        ({"users": ["a", "a"]}, "users: expected every user once"),
        ({"at": AT.replace(tzinfo=None)}, "at: expected a date with time zone"),
    ],
)
def test_mistakes_are_named(store: FeatureStore, changed: dict, said: str) -> None:
    given = {"name": "x", "users": ["a", "b"], "scores": np.zeros(2), "at": AT, **changed}
    with pytest.raises(InputError, match=said):
        write_scores(store, space="s", **given)
    assert not store.workspace.scores.exists()


def test_the_page_about_training_runs_on_tiny_snapshots(
    workspace: Workspace, publish: Callable[..., Manifest], tiny: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Its Python, on embeddings of four weeks whose first coordinate tells the label."""
    rows = []
    for week in range(4):
        SnapshotStore(workspace).activate(publish(week, seed=week).id)
        told = tiny.vectors_of(week, "fused")[:, 0] > 0
        rows += [
            {"user_id": user, "event_timestamp": tiny.WEEKS[week], "label": bool(label)}
            for user, label in zip(tiny.USERS, told, strict=True)
        ]
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "training").symlink_to(workspace.root, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"labels": pd.DataFrame(rows)}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(names["rows"]) == 240 and names["space"] == "a1b2c3d4e5"
    assert names["test"] > 0.5
    scores = FeatureStore(workspace).history(
        "big_spender_score", asked(tiny.USERS, tiny.WEEKS[3]), ["score"]
    )
    assert len(scores) == 60
