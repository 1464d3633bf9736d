"""Every Feast object, derived from what lies in the workspace: parts, manifests, LIVE.

The command ``feast apply`` deletes whatever its scan does not see, so this file always yields all
that should exist: the weekly views that have parts, one view for each kind of each kept snapshot,
the scores that downstream teams handed back, and the feature services, which point at the live
snapshot's views. Downstream teams name a service (``user_embeddings``) and read the feature
``fused_embedding:embedding``, whatever is live.

It is the only file that Feast scans (``.feastignore``) and, with ``store.py``, the only one that
imports feast. Run by hand as::

    cd feature_repo && OPENFOUND_WORKSPACE=/absolute/path feast apply
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Float64, Int64, String

from feature_repo import schema
from feature_repo.errors import InputError, ManifestError
from feature_repo.manifest import plain
from feature_repo.settings import WORKSPACE_VARIABLE, Workspace
from feature_repo.snapshots import KindEntry, Manifest, SnapshotStore

USER: Final = "user_id"
WEEKLY_TTL: Final = timedelta(days=6)
"""A weekly row serves only its own week: with a longer one an absent week returns an older row."""

EMBEDDING_FEATURES: Final = ("embedding", "space", "snapshot")
_BOOKKEEPING: Final = (USER, "event_timestamp", "created")
_TYPES: Final[dict[pa.DataType, Any]] = {
    pa.string(): String,
    pa.float64(): Float64,
    pa.float32(): Float32,
    pa.int64(): Int64,
}


def parts(directory: Path) -> list[Path]:
    """The Parquet parts of one weekly view, sorted; empty if it was never built."""
    return sorted(directory.glob("*.parquet"))


def weekly_views(workspace: Workspace) -> list[FeatureView]:
    """The present tables' weekly views that have parts; all parts of one have the same columns."""
    entity = _user()
    return [
        _view(name, files[0].parent, pq.read_schema(files[0]), entity, ttl=WEEKLY_TTL)
        for name in schema.WEEKLY_VIEWS
        if (files := parts(workspace.features / name))
    ]


def feature_objects(workspace: Workspace) -> list[Entity | FeatureView | FeatureService]:
    """All that Feast should know about this workspace. Damaged snapshots are left out."""
    entity = _user()
    store = SnapshotStore(workspace)
    views = {
        entry.view: _embedding_view(workspace, entry, manifest, entity)
        for manifest in store.list()
        for entry in manifest.kinds.values()
    }
    live = store.live() if store.live_id() else None
    services = [_service(kind, entry, views) for kind, entry in live.kinds.items()] if live else []
    scores = score_views(workspace, entity)
    return [entity, *weekly_views(workspace), *scores, *views.values(), *services]


def score_views(workspace: Workspace, entity: Entity | None = None) -> list[FeatureView]:
    """One view per name under ``scores/``; a score stays valid until there is another."""
    wanted = pa.schema([f for f in schema.SCORES if f.name not in _BOOKKEEPING])
    return [
        _view(score_view(directory.name), directory, wanted, entity or _user(), ttl=timedelta(0))
        for directory in sorted(workspace.scores.glob("*"))
        if parts(directory)
    ]


def score_view(name: str) -> str:
    """The view of a score: ``big_spender_score`` for big_spender."""
    return f"{name}_score"


def service_name(kind: str) -> str:
    """The name downstream teams use: ``user_embeddings`` for fused, ``<kind>_embeddings`` else."""
    return "user_embeddings" if kind == "fused" else f"{plain(kind)}_embeddings"


def _user() -> Entity:
    return Entity(name="user", join_keys=[USER], value_type=ValueType.STRING)


def _service(kind: str, entry: KindEntry, views: dict[str, FeatureView]) -> FeatureService:
    # with_name keeps the feature's name the same from snapshot to snapshot.
    view = views[entry.view].with_name(f"{plain(kind)}_embedding")
    return FeatureService(name=service_name(kind), features=[view])


def _embedding_view(
    workspace: Workspace, entry: KindEntry, manifest: Manifest, entity: Entity
) -> FeatureView:
    """One kind of one snapshot. No ttl: the latest embedding stays valid until there is another,
    which is also what the online store answers."""
    directory = (workspace.root / entry.parts[0]).parent
    wanted = pa.schema([f for f in schema.EMBEDDING if f.name in EMBEDDING_FEATURES])
    tags = {"snapshot": manifest.id, "space": manifest.space, "kind": entry.kind}
    return _view(entry.view, directory, wanted, entity, ttl=timedelta(0), tags=tags)


def _view(
    name: str,
    directory: Path,
    columns: pa.Schema,
    entity: Entity,
    *,
    ttl: timedelta,
    tags: dict[str, str] | None = None,
) -> FeatureView:
    source = FileSource(
        name=name,
        path=str(directory),  # absolute: a relative one hangs on the working directory
        file_format=ParquetFormat(),  # without it a directory is not read as Parquet
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    features = [
        Field(name=column.name, dtype=_feast_type(name, column))
        for column in columns
        if column.name not in _BOOKKEEPING
    ]
    return FeatureView(
        name=name,
        entities=[entity],
        # The join key is named here so that Feast need not open the source to learn its type.
        schema=[Field(name=USER, dtype=String), *features],
        source=source,
        ttl=ttl,
        online=True,
        tags=tags or {},
    )


def _feast_type(view: str, column: pa.Field) -> Any:
    # Two list types are unequal if only their inner fields' names differ, so look inside.
    inner = column.type.value_type if pa.types.is_list(column.type) else column.type
    if inner not in _TYPES:
        raise InputError(
            f"{view}.{column.name}: expected {', '.join(map(str, _TYPES))} or a list of one, "
            f"got {column.type}; write the part with such a type"
        )
    return _TYPES[inner] if not pa.types.is_list(column.type) else Array(_TYPES[inner])


def _scanned_workspace() -> Workspace:
    """The workspace for Feast's own commands, where a mistake would delete or scatter views."""
    root = os.environ.get(WORKSPACE_VARIABLE, "")
    if not Path(root).is_absolute() or not Path(root).is_dir():
        raise InputError(
            f"{WORKSPACE_VARIABLE}: expected the absolute path of a workspace that exists, "
            f"got {root!r}; set it before running Feast's commands"
        )
    workspace = Workspace(Path(root))
    if damaged := SnapshotStore(workspace).damaged():
        # Feast would take the views of a snapshot it cannot see for deleted ones.
        raise ManifestError("; ".join(damaged.values()))
    return workspace


if __name__ == "definitions":  # so named when Feast's scan imports the file and looks for objects
    globals().update(
        {f"_object_{n}": each for n, each in enumerate(feature_objects(_scanned_workspace()))}
    )
