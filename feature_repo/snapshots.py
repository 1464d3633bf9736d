"""Snapshots: what was built together, which one is live, and how to go back.

A snapshot is staged in ``staging/<id>``, and becomes visible in one rename to ``snapshots/<id>``
with its manifest written last. ``LIVE`` names the live one; the Feast feature services and the
Milvus alias are derived from it (``publishing.py``), so activating and rolling back is the
replacement of one small file.

    store = SnapshotStore(workspace)
    directory = store.stage(store.new_id(space, as_of))
    ...                                         # write embeddings/, matrix/, users.parquet
    store.commit(manifest)
    store.activate(manifest.id)
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from feature_repo import durable
from feature_repo.errors import InputError, ManifestError, NoLiveSnapshot, UnknownSnapshot
from feature_repo.manifest import (
    ID_PATTERN,
    CheckpointEntry,
    KindEntry,
    Live,
    Manifest,
    check_space_dates,
    collection_name,
    part_name,
    plain,
    view_name,
)
from feature_repo.settings import Workspace

__all__ = [
    "CheckpointEntry",
    "KindEntry",
    "Manifest",
    "SnapshotStore",
    "check_space_dates",
    "collection_name",
    "part_name",
    "view_name",
]

MANIFEST: Final = "manifest.json"
Names = list[str]  # inside SnapshotStore, ``list`` is its own method

log = logging.getLogger(__name__)


class SnapshotStore:
    """The snapshots of one workspace, and which of them is live."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    # --- reading

    def list(self) -> list[Manifest]:
        """Readable snapshots, newest first; damaged ones are logged by name and left out."""
        manifests = []
        for snapshot_id in self._ids():
            try:
                manifests.append(self.load(snapshot_id))
            except ManifestError as error:
                log.warning("left out snapshot %s: %s", snapshot_id, error)
        return sorted(manifests, key=lambda m: (m.created_at, m.id), reverse=True)

    def damaged(self) -> dict[str, str]:
        """Snapshots on disk whose manifest cannot be read: id → what is wrong."""
        problems = {}
        for snapshot_id in self._ids():
            try:
                self.load(snapshot_id)
            except ManifestError as error:
                problems[snapshot_id] = str(error)
        return problems

    def load(self, snapshot_id: str) -> Manifest:
        """The manifest of one snapshot. Raises UnknownSnapshot or ManifestError."""
        directory = self.workspace.snapshots / snapshot_id
        if not ID_PATTERN.fullmatch(snapshot_id) or not directory.is_dir():
            raise UnknownSnapshot(
                f"snapshot: expected one of {self._ids() or 'none yet'}, got {snapshot_id!r}"
            )
        path = directory / MANIFEST
        remedy = "restore the file, or delete that directory and publish again"
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ManifestError(f"{path} cannot be read ({_brief(error)}); {remedy}") from error
        if manifest.id != snapshot_id:
            raise ManifestError(f"{path} calls itself {manifest.id!r}; {remedy}")
        return manifest

    def live_id(self) -> str | None:
        """Id of the live snapshot, or None before the first activation."""
        live = self._read_live()
        return live.snapshot if live else None

    def live(self) -> Manifest:
        """The live snapshot's manifest, or :class:`NoLiveSnapshot`."""
        snapshot_id = self.live_id()
        if snapshot_id is None:
            raise NoLiveSnapshot(
                f"no snapshot is live in {self.workspace.root}; build and publish one with "
                f"`python -m ray_jobs.pipeline --workspace {self.workspace.root} …`"
            )
        return self.load(snapshot_id)

    def history(self) -> Names:
        """The live snapshot's id and those that were live before it, most recent first."""
        live = self._read_live()
        return [live.snapshot, *live.previous] if live else []

    # --- writing

    def new_id(self, space: str, as_of: datetime) -> str:
        """``<as_of>_<space>_<n>``, n above all that are there; valid as a name everywhere."""
        stem = f"{as_of:%Y%m%d}_{re.sub(r'[^a-z0-9]', '', space.lower())[:8]}_"
        known = {*self._ids(), *self.history()}
        taken = [int(name.removeprefix(stem)) for name in known if name.startswith(stem)]
        return f"{stem}{max(taken, default=0) + 1}"

    def stage(self, snapshot_id: str) -> Path:
        """An empty directory to build in; what an unfinished build left there is wiped."""
        if not ID_PATTERN.fullmatch(snapshot_id):
            raise InputError(f"snapshot: expected only a-z, 0-9 and _, got {snapshot_id!r}")
        directory = self.workspace.staging / snapshot_id
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return directory

    def link_earlier_parts(
        self, snapshot_id: str, *, space: str, before: datetime
    ) -> dict[str, Names]:
        """Hard-link the embeddings of earlier dates of ``space`` into the staged snapshot.

        They come from the live snapshot if it is of that space, else from the newest one that is:
        what was rolled back does not return through history. Dates that are staged already stay.

        Returns kind → paths relative to the workspace, as they are after :meth:`commit`.
        """
        source = self._newest_of(space)
        linked: dict[str, Names] = {}
        for kind, entry in source.kinds.items() if source else ():
            for part in map(Path, sorted(entry.parts)):
                inside = Path("embeddings") / plain(kind) / part.name
                target = self.workspace.staging / snapshot_id / inside
                if target.exists() or part.name >= part_name(before):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(self.workspace.root / part, target)
                linked.setdefault(kind, []).append(f"snapshots/{snapshot_id}/{inside}")
        return linked

    def commit(self, manifest: Manifest) -> None:
        """Make the staged snapshot visible in one step, its manifest written last."""
        staged = self.workspace.staging / manifest.id
        target = self.workspace.snapshots / manifest.id
        if target.exists():
            raise InputError(f"snapshot: {manifest.id} exists and is immutable; take a new id")
        self._check_staged(manifest)
        durable.write(staged / MANIFEST, manifest.model_dump_json(indent=2).encode())
        durable.sync_tree(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(staged, target)
        durable.sync(target.parent)

    def activate(self, snapshot_id: str) -> None:
        """Make one snapshot live. Its manifest must be readable; a damaged LIVE is replaced."""
        self.load(snapshot_id)
        with self._lock():
            try:
                history = self.history()
            except ManifestError as error:
                log.warning("the earlier activations are lost: %s", error)
                history = []
            if history[:1] == [snapshot_id]:
                return
            self._write_live(snapshot_id, [past for past in history if past != snapshot_id])

    def rollback(self) -> str:
        """Make the snapshot that was live before live again; returns its id."""
        with self._lock():
            live, *past = self.history() or [self.live().id]
            candidates = [snapshot_id for snapshot_id in past if snapshot_id in self._ids()]
            if not candidates:
                raise UnknownSnapshot(
                    f"no snapshot was live before {live}, so there is nothing to roll back to; "
                    f"activate one of {self._ids()} by name"
                )
            self.load(candidates[0])
            self._write_live(candidates[0], candidates[1:])
            return candidates[0]

    def prune(self, keep: int) -> Names:
        """Delete all but the newest ``keep`` snapshots, the live one and the one before it.

        Returns the Milvus collections that nothing refers to any more.
        """
        if keep < 1:
            raise InputError(f"keep: expected at least 1, got {keep}")
        with self._lock():
            manifests = self.list()
            spared = {m.id for m in manifests[:keep]} | set(self.history()[:2])
            dropped = [m for m in manifests if m.id not in spared]
            for manifest in dropped:
                # Renamed first: a half-deleted directory must not look like a damaged snapshot.
                bin_ = self.workspace.staging / f".dropped-{manifest.id}"
                bin_.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(bin_, ignore_errors=True)
                os.rename(self.workspace.snapshots / manifest.id, bin_)
                shutil.rmtree(bin_)
        return [entry.collection for m in dropped for entry in m.kinds.values()]

    # --- inside

    def _ids(self) -> Names:
        if not self.workspace.snapshots.is_dir():
            return []
        return sorted(path.name for path in self.workspace.snapshots.iterdir() if path.is_dir())

    def _newest_of(self, space: str) -> Manifest | None:
        same = {m.id: m for m in self.list() if m.space == space}
        live = self.live_id()
        return same.get(live or "") or next(iter(same.values()), None)

    def _check_staged(self, manifest: Manifest) -> None:
        """What the manifest names must lie in the staging directory, with the size it says."""
        users = self._staged(manifest, manifest.users)
        if (rows := pq.read_metadata(users).num_rows) != manifest.num_users:
            raise ManifestError(f"{users} has {rows} rows, the manifest says {manifest.num_users}")
        for file in manifest.other_files:
            self._staged(manifest, file.path)
        for kind, entry in manifest.kinds.items():
            for part in entry.parts:
                self._staged(manifest, part)
            path = self._staged(manifest, entry.matrix)
            shape = np.load(path, mmap_mode="r").shape
            expected = (manifest.num_users, entry.dim)
            if shape != expected or entry.kind != kind or entry.count != manifest.num_users:
                raise ManifestError(
                    f"{path} has shape {shape}; the manifest's entry {kind!r} says kind "
                    f"{entry.kind!r}, count {entry.count}, expected shape {expected}"
                )

    def _staged(self, manifest: Manifest, relative: str) -> Path:
        home = Path("snapshots") / manifest.id
        if not Path(relative).is_relative_to(home):
            raise ManifestError(f"manifest: expected paths below {home}, got {relative!r}")
        path = self.workspace.staging / manifest.id / Path(relative).relative_to(home)
        if not path.is_file():
            raise ManifestError(f"the manifest names {relative!r}, but {path} is not there")
        return path

    def _read_live(self) -> Live | None:
        path = self.workspace.live_file
        try:
            return Live.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ManifestError(
                f"{path} cannot be read ({_brief(error)}); activate one of {self._ids()} by name, "
                f"which writes it anew"
            ) from error

    def _write_live(self, snapshot_id: str, previous: Names) -> None:
        live = Live(snapshot=snapshot_id, previous=previous, activated_at=datetime.now(UTC))
        durable.write(self.workspace.live_file, live.model_dump_json(indent=2).encode())

    def _lock(self) -> AbstractContextManager[None]:
        return durable.locked(self.workspace.root / ".lock")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _brief(error: Exception) -> str:
    """One line: where a JSON document is wrong, or what the system said."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    return str(error)
