"""What is evaluated: a snapshot, the data it was built from, and the tasks at its date."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.query import QueryEncoder
from encoders.rewriters import RewriterPlaces, maker
from encoders.rewriting import Choice
from encoders.text import LineEncoder
from feature_repo.manifest import Manifest, check_space_dates
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.sources import complete_journey
from feature_repo.transforms import open_tables
from ray_jobs.build_features import Dataset, read_dataset
from ray_jobs.protocol import CATEGORIES, Protocol, Task, frequent_headings

EARLIER = timedelta(days=56)
"""How far back thresholds are fixed: the longest horizon, so that every outcome is known."""


@dataclass(frozen=True)
class Subject:
    """A snapshot under evaluation; everything costly is made once, when first asked for."""

    workspace: Workspace
    manifest: Manifest
    dataset: Dataset

    @classmethod
    def open(cls, workspace: Workspace, snapshot: str | None) -> Subject:
        """The snapshot of that id, or the live one.

        Raises:
            TimeError: its weights have seen what comes after its date.
        """
        snapshots = SnapshotStore(workspace)
        manifest = snapshots.load(snapshot) if snapshot else snapshots.live()
        check_space_dates(manifest.trained_as_of, [manifest.as_of])
        return cls(workspace, manifest, read_dataset(workspace))

    @property
    def identity(self) -> list[Any]:
        """What every result of this subject depends on, JSON-able."""
        matrices = {kind: entry.matrix_sha256 for kind, entry in self.manifest.kinds.items()}
        return [self.manifest.id, self.manifest.space, matrices, self.dataset.tables]

    @cached_property
    def con(self) -> duckdb.DuckDBPyConnection:
        """The canonical tables."""
        return open_tables(self.workspace.root / self.dataset.tables)

    @cached_property
    def profiles(self) -> pa.Table | None:
        """The source's profiles; None where the build has them: no labels that were read.

        None of other data too: nobody wrote down what their columns mean.
        """
        asked = self.dataset.source == complete_journey.NAME and not self.dataset.demographics
        return complete_journey.profiles() if asked else None

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """What groups A and B ask for; of other data the headings most bought by eight weeks before
        the date, or by the date where the data begin later."""
        if self.dataset.source == complete_journey.NAME:
            return CATEGORIES
        now = self.manifest.as_of
        return frequent_headings(self.con, now - EARLIER) or frequent_headings(self.con, now)

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol at the snapshot's date."""
        when = self.manifest.as_of
        return Protocol(self.con, when, self.profiles, categories=self.categories)

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks at the snapshot's date; group E only where :attr:`profiles` are unseen."""
        return self.protocol.tasks()

    @cached_property
    def earlier(self) -> Protocol:
        """The protocol eight weeks before: all of its outcomes are known at the snapshot's date."""
        return Protocol(self.con, self.manifest.as_of - EARLIER, categories=self.categories)

    @cached_property
    def users(self) -> list[str]:
        """User ids in the row order of every matrix."""
        table = pq.read_table(self.workspace.root / self.manifest.users)
        users: list[str] = table["user_id"].to_pylist()
        return users

    @cached_property
    def lines(self) -> LineEncoder:
        """The untuned language model, with the workspace's cache of vectors."""
        return LineEncoder(self.workspace.cache)

    def vectors(self, kind: str) -> np.ndarray:
        """Vectors of one kind, float32 [N, dim]."""
        return np.load(self.workspace.root / self.manifest.entry(kind).matrix)

    def query_encoder(self, rewriter: Choice = "none") -> QueryEncoder:
        """The text tower of the fused vectors, with a reader of demands before it."""
        places = RewriterPlaces(self.workspace.cache, self.workspace.rewriter)
        directory = self.workspace.root / self.manifest.checkpoints["alignment"].path
        return QueryEncoder.open(directory, maker(rewriter, places))
