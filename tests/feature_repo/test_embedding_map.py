"""The map of the embedding space: whom it holds, where they lie, what their groups are called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import embedding_map
from feature_repo.embedding_map import QUIET, draw_map, open_map
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace

USERS = 90
GROUPS = np.arange(USERS) % 3
SUBJECTS = ("CAT FOOD", "DIAPERS/WIPES")


def publish(root: Path, *, day: int = 3, cold: bool = False) -> tuple[Workspace, Any]:
    """Three groups far apart: the first two bought one thing each ``day`` days ago."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 0.2, (USERS, 4)) + 5 * np.eye(4)[GROUPS]
    if cold:
        vectors[:30] = 0
    Matrix.write(root / "fused.npy", vectors.astype(np.float32))
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in range(USERS)]}), root / "users.parquet")
    subjects = {"subject": [0, 1, 2], "verb": ["bought"] * 3, "name": ["", *SUBJECTS]}
    pq.write_table(pa.table(subjects), root / "subjects.parquet")
    done = [(GROUPS[row] + 1, day, row) for row in range(USERS) if GROUPS[row] < 2]
    columns = {
        name: pa.array([one[k] for one in sorted(done)], pa.int32())
        for k, name in enumerate(("subject", "day", "row"))
    }
    pq.write_table(pa.table(columns), root / "behaviour.parquet")
    facts = SimpleNamespace(
        subjects=SimpleNamespace(path="subjects.parquet"),
        behaviour=SimpleNamespace(path="behaviour.parquet"),
    )
    entry = SimpleNamespace(matrix="fused.npy", dim=4, cold=30 if cold else 0)
    manifest = SimpleNamespace(
        id="one", facts=facts, num_users=USERS, users="users.parquet", entry=lambda kind: entry
    )
    return Workspace(root), manifest


def test_groups_are_found_placed_and_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(embedding_map, "_CLUSTERS", 3)
    workspace, manifest = publish(tmp_path)
    drawn = draw_map(workspace, manifest, "fused")
    assert drawn.users.to_pylist() == [f"u{n}" for n in range(USERS)]
    assert np.abs(drawn.xy).max() == pytest.approx(1)
    names = [drawn.names[cluster] for cluster in drawn.cluster]
    assert names[:3] == ["Cat food", "Diapers / wipes", QUIET] and names == names[:3] * 30
    centres = np.stack([drawn.xy[GROUPS == group].mean(axis=0) for group in range(3)])
    nearest = np.linalg.norm(drawn.xy[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == GROUPS).mean() > 0.95


def test_a_map_is_kept_and_drawn_the_same(tmp_path: Path) -> None:
    workspace, manifest = publish(tmp_path)
    assert open_map(workspace, manifest, "fused") is None
    first = draw_map(workspace, manifest, "fused")
    kept = open_map(workspace, manifest, "fused")
    again = draw_map(workspace, manifest, "fused")
    for other in (kept, again):
        assert other is not None and other.names == first.names and other.users == first.users
        assert np.array_equal(other.xy, first.xy) and np.array_equal(other.cluster, first.cluster)
    (tmp_path / "fused.map.parquet").write_bytes(b"torn")
    assert open_map(workspace, manifest, "fused") is None


def test_what_is_long_ago_names_nobody(tmp_path: Path) -> None:
    workspace, manifest = publish(tmp_path, day=embedding_map.RECENT_DAYS)
    drawn = draw_map(workspace, manifest, "fused")
    assert all(name.startswith(QUIET) for name in drawn.names)


def test_cold_users_are_left_out_and_many_are_sampled(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(embedding_map, "MAX_POINTS", 20)
    workspace, manifest = publish(tmp_path, cold=True)
    drawn = draw_map(workspace, manifest, "fused")
    assert drawn.users.to_pylist() == [f"u{n}" for n in range(30, USERS, 3)]
