"""A tiny workspace (60 users, 8 weeks, all three weekly views) and tiny snapshots in it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo import durable, schema
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.snapshots import (
    CheckpointEntry,
    KindEntry,
    Manifest,
    SnapshotStore,
    collection_name,
    part_name,
    view_name,
)

NUM_USERS, NUM_WEEKS, DIM = 60, 8, 8
FIRST = datetime(2017, 5, 1, tzinfo=UTC)
WEEKS = [FIRST + timedelta(weeks=n) for n in range(NUM_WEEKS)]
USERS = [str(n) for n in range(1, NUM_USERS + 1)]
KINDS = ("behaviour", "tabular", "search", "fused")

Publish = Callable[..., Manifest]


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """This module: its constants and functions, which a test file cannot import."""
    return sys.modules[__name__]


@pytest.fixture(autouse=True)
def no_outer_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENFOUND_MILVUS_URI", "OPENFOUND_REDIS_URL", "OPENFOUND_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)


def absent(user: int, week: int) -> bool:
    """Users whose number divides the week's (from 2 on) bought nothing in that week."""
    return week >= 2 and user % week == 0


def behaviour_rows(week: int) -> pa.Table:
    users = [int(user) for user in USERS if not absent(int(user), week)]
    rows = [
        {
            "user_id": str(user),
            "event_timestamp": WEEKS[week],
            "created": WEEKS[week],
            "bills": [f"milk {user}", f"tea {week}"] if user % 7 else [],
            "bill_counts": [1.5, float(week)] if user % 7 else [],
            "clicks": None,
            "click_counts": None,
            "num_events": user * 100 + week,
            "amount": user + week / 10,
        }
        for user in users
    ]
    return pa.Table.from_pylist(rows, schema=schema.BEHAVIOUR_WEEKLY)


def profile_rows(week: int) -> pa.Table:
    return pa.table(
        {
            "user_id": USERS,
            "event_timestamp": pa.array([WEEKS[week]] * NUM_USERS, schema.TIMESTAMP),
            "created": pa.array([WEEKS[week]] * NUM_USERS, schema.TIMESTAMP),
            "store": [f"store {int(user) % 5}" for user in USERS],
            "spend": [float(user) * week if int(user) % 3 else None for user in USERS],
        }
    )


def search_rows(week: int) -> pa.Table:
    rows = [
        {
            "user_id": user,
            "event_timestamp": WEEKS[week],
            "created": WEEKS[week],
            "searches": [f"find {user}"],
            "search_counts": [1.0],
        }
        for user in USERS[:10]
    ]
    return pa.Table.from_pylist(rows, schema=schema.SEARCH_WEEKLY)


def write_part(directory: Path, key: str, table: pa.Table) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"part-{key}.parquet"
    pq.write_table(table, path, coerce_timestamps="us")
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace whose three weekly views have eight parts each."""
    workspace = Workspace(tmp_path / "work space #1")
    makers = {
        "behaviour_weekly": behaviour_rows,
        "profile_weekly": profile_rows,
        "search_weekly": search_rows,
    }
    for view, make in makers.items():
        for week in range(NUM_WEEKS):
            write_part(workspace.features / view, f"{WEEKS[week]:%Y-%m-%d}", make(week))
    return workspace


def embedding_part(path: Path, vectors: np.ndarray, date: datetime, manifest_id: str) -> None:
    rows = len(vectors)
    times = pa.array([date] * rows, schema.TIMESTAMP)
    table = pa.table(
        {
            "user_id": USERS[:rows],
            "event_timestamp": times,
            "created": times,
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
            "space": ["a1b2c3d4e5"] * rows,
            "snapshot": [manifest_id] * rows,
            "trained_as_of": times,
        },
        schema=schema.EMBEDDING,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, coerce_timestamps="us")


def vectors_of(seed: int, kind: str) -> np.ndarray:
    generator = np.random.default_rng([seed, KINDS.index(kind)])
    return generator.standard_normal((NUM_USERS, DIM)).astype(np.float32)


def stage_snapshot(
    workspace: Workspace,
    week: int,
    *,
    seed: int,
    kinds: tuple[str, ...] = KINDS,
    space: str = "a1b2c3d4e5",
) -> Manifest:
    """Write everything of a snapshot as of one week into staging, without committing it."""
    store = SnapshotStore(workspace)
    snapshot_id = store.new_id(space, WEEKS[week])
    staged = store.stage(snapshot_id)
    linked = store.link_earlier_parts(snapshot_id, space=space, before=WEEKS[week])
    pq.write_table(pa.table({"user_id": USERS}), staged / "users.parquet")
    entries = {}
    for kind in kinds:
        vectors = vectors_of(seed, kind)
        part = f"embeddings/{kind}/{part_name(WEEKS[week])}"
        embedding_part(staged / part, vectors, WEEKS[week], snapshot_id)
        Matrix.write(staged / f"matrix/{kind}.npy", vectors)
        entries[kind] = KindEntry(
            kind=kind,
            dim=DIM,
            count=NUM_USERS,
            parts=[*linked.get(kind, []), f"snapshots/{snapshot_id}/{part}"],
            view=view_name(kind, snapshot_id),
            collection=collection_name(kind, snapshot_id),
            matrix=f"snapshots/{snapshot_id}/matrix/{kind}.npy",
            matrix_sha256=durable.sha256(staged / f"matrix/{kind}.npy"),
        )
    return Manifest(
        id=snapshot_id,
        space=space,
        as_of=WEEKS[week],
        trained_as_of=WEEKS[0],
        horizon_days=14,
        created_at=WEEKS[week] + timedelta(hours=seed),
        feature_hash="0" * 64,
        checkpoints={"fused": CheckpointEntry(path="checkpoints/x", sha256="0" * 64)},
        kinds=entries,
        num_users=NUM_USERS,
        users=f"snapshots/{snapshot_id}/users.parquet",
        reports=[],
        built_by="test",
        version="0",
        source="synthetic",
        synthetic=True,
    )


@pytest.fixture
def publish(workspace: Workspace) -> Publish:
    """``publish(week, seed=…)`` commits a snapshot as of that week and returns its manifest."""

    def publish(week: int, *, seed: int, **options: object) -> Manifest:
        manifest = stage_snapshot(workspace, week, seed=seed, **options)  # type: ignore[arg-type]
        SnapshotStore(workspace).commit(manifest)
        return manifest

    return publish
