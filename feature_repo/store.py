"""The façade over Feast: point-in-time history, online rows, and applying the definitions.

With ``definitions.py`` the only importer of feast. Downstream teams who want Feast itself take
``open_feature_store(path).feast`` and name the feature service ``user_embeddings``.

What Feast 0.67 would get wrong, and is handled here:

- its file registry is rewritten in place, so a reader can meet half a file: we apply to a copy and
  swap it in;
- its history returns rows in no order, with nulls where nothing was found: sorted, dropped;
- its ``materialize`` holds a view in memory, row by row as Python objects: we select the latest
  rows in DuckDB and write them in batches;
- its online stores keep a row for ever and let an older one overwrite a newer: ``online`` answers
  only what was valid at the last ``materialize`` of the view.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore as Feast
from feast import FeatureView, RepoConfig
from feast.errors import FeatureViewNotFoundException
from feast.type_map import feast_value_type_to_python_type
from feast.types import Array, from_feast_to_pyarrow_type

from feature_repo import durable, feast_settings
from feature_repo.definitions import USER, feature_objects, weekly_views
from feature_repo.errors import InputError
from feature_repo.latest import latest_rows
from feature_repo.manifest import Manifest
from feature_repo.schema import TIMESTAMP, WEEKLY_VIEWS
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore

HISTORY_ROWS: Final = 250_000  # entity rows per join; bounds the memory, costs one more scan each
WRITE_ROWS: Final = 5_000
READ_ROWS: Final = 5_000  # Feast's SQLite store binds one variable per user, at most 32,766
_KEYS: Final = (USER, "event_timestamp")
_ORDER: Final = [("event_timestamp", "ascending"), (USER, "ascending")]

# Feast's DuckDB store works on one connection for the whole process.
_offline_lock = threading.Lock()


def open_feature_store(workspace: Workspace | str | Path | None = None) -> FeatureStore:
    """The feature store of a workspace (default: ``OPENFOUND_WORKSPACE``), definitions applied."""
    if not isinstance(workspace, Workspace):
        workspace = Workspace.from_env(workspace)
    store = FeatureStore(workspace)
    if not (workspace.feast / "registry.db").exists():
        store.apply()
    return store


class FeatureStore:
    """Reads and writes the features of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._feast: Feast | None = None
        self._ttl: dict[str, timedelta | None] = {}

    @property
    def feast(self) -> Feast:
        """The underlying store, for ``get_historical_features`` and ``get_online_features``."""
        if self._feast is None:
            if not self._registry.exists():
                self.apply()
            feast_settings.hush()
            self._feast = Feast(config=self._config(self._registry))
            views = self._feast.list_feature_views()
            if self._built() and any(map(self._is_of_other_tables, views)):
                self.apply()
        return self._feast

    # --- definitions

    def apply(self) -> None:
        """Make Feast's registry agree with the workspace. Idempotent, safe beside readers."""
        with durable.locked(self.workspace.feast / ".lock"):
            with durable.replacing(self._registry) as copy:
                if self._registry.exists():
                    shutil.copyfile(self._registry, copy)
                self._apply_to(copy)
            self._let_readers_read()
        self._ttl.clear()
        if self._feast is not None:
            self._feast.refresh_registry()

    def _apply_to(self, registry: Path) -> None:
        feast_settings.hush()
        target = Feast(config=self._config(registry, keep=True))
        wanted = feature_objects(self.workspace)
        names = {each.name for each in wanted}
        if not self._built():
            names |= {*WEEKLY_VIEWS}
        damaged = tuple(f"__{snapshot}" for snapshot in SnapshotStore(self.workspace).damaged())
        existing = [*target.list_feature_views(), *target.list_feature_services()]
        stale = [
            each
            for each in existing
            if each.name not in names and not (damaged and each.name.endswith(damaged))
        ]
        sources = [each.batch_source for each in stale if isinstance(each, FeatureView)]
        target.apply(wanted, objects_to_delete=[*stale, *sources], partial=False)

    def _built(self) -> bool:
        """Whether the present tables have weekly views; until then those of before are kept."""
        return self.workspace.features.is_dir()

    def _is_of_other_tables(self, view: FeatureView) -> bool:
        directory = Path(view.batch_source.path).parent
        return view.name in WEEKLY_VIEWS and directory != self.workspace.features

    def _let_readers_read(self) -> None:
        """In WAL mode, which the file remembers, a bulk write does not shut out online reads."""
        path = self.workspace.feast / "online.db"
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    def feature_hash(self, of: Sequence[str] | None = None) -> str:
        """Hash of the weekly views' definitions: names, features, types, ttl.

        ``of`` names the views that count, default all: a space hangs on what its models read.
        """
        views = [
            (view.name, sorted((f.name, str(f.dtype)) for f in view.features), str(view.ttl))
            for view in weekly_views(self.workspace)
            if of is None or view.name in of
        ]
        return hashlib.sha256(json.dumps(sorted(views)).encode()).hexdigest()

    def features_of(self, view: str) -> list[str]:
        """Names of the view's features, in the order of its schema."""
        return [feature.name for feature in self._view(view).features]

    # --- history

    def history(
        self, view: str, users_and_times: pa.Table, features: Sequence[str] | None = None
    ) -> pa.Table:
        """Features as they were known at each (user, time), by Feast's point-in-time join.

        ``users_and_times`` has the columns user_id (string) and event_timestamp (UTC). Returns
        user_id, event_timestamp and the features, for the rows where something was found, sorted
        by time and user; lists stay Arrow lists. A row asked for twice comes twice.
        """
        asked = self._checked(view, features)
        wanted = list(dict.fromkeys([*asked, *self._witnesses(view)]))
        entities = _entities(users_and_times).sort_by(_ORDER)
        pieces = [
            self._found(view, entities.slice(start, HISTORY_ROWS), wanted)
            for start in range(0, max(len(entities), 1), HISTORY_ROWS)
        ]
        return pa.concat_tables(pieces).select([*_KEYS, *asked])

    def _found(self, view: str, entities: pa.Table, features: list[str]) -> pa.Table:
        """One join, sorted. Feast gives nulls for what it did not find: such rows go."""
        schema = _result_schema(self._present_view(view), features)
        if not len(entities):
            return schema.empty_table()
        with _offline_lock:
            rows = self.feast.get_historical_features(
                entity_df=entities.to_pandas(), features=[f"{view}:{name}" for name in features]
            ).to_arrow()
        found = pc.is_valid(rows[features[0]])
        for name in features[1:]:
            found = pc.or_(found, pc.is_valid(rows[name]))
        return rows.filter(found).select(schema.names).cast(schema).sort_by(_ORDER)

    def _witnesses(self, view: str) -> list[str]:
        """Features that tell a row that exists from one that does not: scalars, they are cheap."""
        fields = self._view(view).features
        scalars = [field.name for field in fields if not isinstance(field.dtype, Array)]
        return scalars or [field.name for field in fields]

    # --- online

    def materialize(self, view: str, at: datetime) -> int:
        """Write each user's latest row as of ``at`` (inclusive) online; returns their number.

        Afterwards ``online`` answers for exactly these users, even if a later date, or an earlier
        one, was materialized before.
        """
        definition = self._present_view(view)
        rows = 0
        columns = [*_KEYS, "created", *self.features_of(view)]
        directory = Path(definition.batch_source.path)
        for batch in latest_rows(directory, columns, at, ttl=definition.ttl, batch=WRITE_ROWS):
            self.feast.write_to_online_store(view, df=batch.to_pandas())
            rows += len(batch)
        with durable.locked(self.workspace.feast / ".lock"):
            times = {**self._materialized(), view: at.isoformat()}
            durable.write(self._times_file, json.dumps(times, indent=2).encode())
        return rows

    def online(
        self, view: str, user_ids: Sequence[str], features: Sequence[str] | None = None
    ) -> pa.Table:
        """user_id and features of the users that have a row, in the order asked for."""
        asked = self._checked(view, features)
        schema = _result_schema(self._view(view), asked, online=True)
        pieces = [
            pa.table([users, *(_python(column) for column in columns)], schema=schema)
            for users, columns in self._online(view, user_ids, asked)
        ]
        return pa.concat_tables(pieces) if pieces else schema.empty_table()

    def online_embeddings(
        self, manifest: Manifest, kind: str, user_ids: Sequence[str]
    ) -> tuple[list[str], np.ndarray]:
        """Found ids in the order asked for, and their embeddings [n, dim] float32."""
        entry = manifest.entry(kind)
        found: list[str] = []
        vectors: list[np.ndarray] = []
        for users, (column,) in self._online(entry.view, user_ids, ["embedding"]):
            found += users
            vectors += [np.array(value.float_list_val.val, dtype=np.float32) for value in column]
        return found, np.stack(vectors) if vectors else np.empty((0, entry.dim), np.float32)

    def _online(
        self, view: str, user_ids: Sequence[str], features: list[str]
    ) -> Iterator[tuple[list[str], list[list[Any]]]]:
        """Per batch the users that have a valid row, and per feature their protocol values."""
        first, last = self._validity(view)
        unique = list(dict.fromkeys(user_ids))
        for start in range(0, len(unique), READ_ROWS):
            users = unique[start : start + READ_ROWS]
            response = self.feast.get_online_features(
                features=[f"{view}:{name}" for name in features], entity_rows={USER: users}
            ).proto
            columns = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
            results = [columns[name] for name in features]
            keep = [
                row
                for row, stamp in enumerate(results[0].event_timestamps)
                if first <= stamp.ToNanoseconds() <= last
            ]
            yield [users[row] for row in keep], [[r.values[row] for row in keep] for r in results]

    def _validity(self, view: str) -> tuple[float, float]:
        """Between which times (ns) a row must lie to count as found online."""
        at = self._materialized().get(view)
        if at is None:
            return 1, float("inf")  # Feast stamps a missing row with 0
        last = datetime.fromisoformat(at)
        if view not in self._ttl:  # Feast rebuilds a view from its registry each time: 2 ms
            self._ttl[view] = self._view(view).ttl
        ttl = self._ttl[view]
        return _nanoseconds(last - ttl) if ttl else 1, _nanoseconds(last)

    # --- inside

    def _config(self, registry: Path, *, keep: bool = False) -> RepoConfig:
        return RepoConfig(**feast_settings.of(self.workspace, registry, keep=keep))

    @property
    def _registry(self) -> Path:
        return self.workspace.feast / "registry.db"

    @property
    def _times_file(self) -> Path:
        return self.workspace.feast / "materialized.json"

    def _materialized(self) -> dict[str, str]:
        try:
            times: dict[str, str] = json.loads(self._times_file.read_bytes())
        except FileNotFoundError:
            return {}
        return times

    def _view(self, name: str) -> FeatureView:
        try:
            return self.feast.get_feature_view(name, allow_registry_cache=True)
        except FeatureViewNotFoundException:
            known = sorted(view.name for view in self.feast.list_feature_views())
            raise InputError(
                f"view: expected one of {known}, got {name!r}; if its parts exist, apply() first"
            ) from None

    def _present_view(self, name: str) -> FeatureView:
        """The view; if it is a weekly one, of the tables that the workspace holds now."""
        view = self._view(name)
        if self._is_of_other_tables(view):
            raise InputError(
                f"{name}: {self.workspace.root} holds other tables by now; build their weekly "
                "views (python -m ray_jobs.build_features), then open the store again"
            )
        return view

    def _checked(self, view: str, features: Sequence[str] | None) -> list[str]:
        known = self.features_of(view)
        if unknown := [name for name in features or () if name not in known]:
            raise InputError(f"features: {view} has {known}, got {unknown}")
        return list(features or known)


def _entities(users_and_times: pa.Table) -> pa.Table:
    """Only the two key columns, in the types that Feast compares."""
    if missing := [name for name in _KEYS if name not in users_and_times.column_names]:
        raise InputError(
            f"users_and_times: expected columns {list(_KEYS)}, "
            f"got {users_and_times.column_names}; add {missing}"
        )
    stamps = users_and_times["event_timestamp"].type
    if not pa.types.is_timestamp(stamps) or stamps.tz is None:
        raise InputError(f"event_timestamp: expected a timestamp with time zone, got {stamps}")
    schema = pa.schema([(USER, pa.string()), ("event_timestamp", TIMESTAMP)])
    return users_and_times.select(list(_KEYS)).cast(schema)


def _result_schema(
    view: FeatureView, features: Sequence[str], *, online: bool = False
) -> pa.Schema:
    types = {f.name: from_feast_to_pyarrow_type(f.dtype) for f in view.features}
    times = [] if online else [("event_timestamp", TIMESTAMP)]
    return pa.schema([(USER, pa.string()), *times, *((name, types[name]) for name in features)])


def _python(values: list[Any]) -> list[Any]:
    return [feast_value_type_to_python_type(value) for value in values]


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000) * 1_000
