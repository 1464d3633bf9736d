"""Users whom no build has seen: their raw events → vectors in the live space, while they wait.

    encode = UserEncoder.open(Workspace("workspace"))
    users, vectors_VD = encode({"events": events}, as_of)

The vector is the one that batch embedding gives the same user: the weekly views are those of batch
builds (``feature_repo.new_users``), and so is the encoder (``encoders.past``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.past import BEHAVIOUR_VIEW, PastEncoder
from feature_repo.errors import NotCarried
from feature_repo.manifest import Manifest, check_space_dates
from feature_repo.new_users import NewUsers
from feature_repo.profiles import PROFILE_PREFIX, OwnColumns
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs.build_features import read_dataset


class UserEncoder:
    """Encodes users from raw rows, with the weights of one snapshot; safe to share between threads.

    It holds the weights, the catalogue and the plans of the weekly views: make it once. The first
    user of each date waits for those plans.

    Raises:
        NotCarried: the snapshot embeds users with another model than FOUND's.
    """

    def __init__(self, workspace: Workspace, manifest: Manifest):
        if (entry := manifest.checkpoints.get("alignment")) is None:
            raise NotCarried(
                f"snapshot {manifest.id} holds {sorted(manifest.checkpoints)}, expected "
                "'alignment' among them: embed with that checkpoint, and publish the snapshot"
            )
        loaded, _ = checkpoint.load(workspace.root / entry.path, expect="alignment")
        model = cast(FoundModel, loaded)
        items = pq.read_table(workspace.root / read_dataset(workspace).tables / "items.parquet")
        self._trained_as_of = manifest.trained_as_of
        self._weekly_rows = NewUsers(items, _own_columns(model))
        self._encode = PastEncoder(model, workspace.cache)
        self._one = threading.Lock()  # the connection and the lines' vectors are for one at a time

    @classmethod
    def open(cls, workspace: Workspace) -> UserEncoder:
        """With the weights of the live snapshot. Raises NoLiveSnapshot."""
        return cls(workspace, SnapshotStore(workspace).live())

    def __call__(
        self, rows: Mapping[str, pa.Table], as_of: datetime
    ) -> tuple[list[str], np.ndarray]:
        """The users known before ``as_of``, sorted, and their fused vectors, float32 [V, D].

        Args:
            rows: everything that is known of these users, as canonical tables (``events``,
                ``searches``, ``profiles``, ``exposures``); those that are left out are empty.

        Raises:
            InputError: rows that are not as ``schema.CANONICAL`` has them, or an unknown item.
            TimeError: ``as_of`` lies before the weights were trained, or before all of the rows.
        """
        check_space_dates(self._trained_as_of, [as_of])
        with self._one:
            tables = self._weekly_rows(rows, as_of)
            users = sorted(set(tables[BEHAVIOUR_VIEW]["user_id"].to_pylist()))
            return users, self._encode(tables, users)


def _own_columns(model: FoundModel) -> OwnColumns:
    """The profile columns of the source's own that the model reads: one user may lack some."""
    if (tabular := model.config.tabular) is None:
        return {}
    kinds: dict[str, Iterable[str]] = {
        "categorical": tabular.vocabularies,
        "continuous": tabular.scales,
    }
    return {
        kind: [n.removeprefix(PROFILE_PREFIX) for n in names if n.startswith(PROFILE_PREFIX)]
        for kind, names in kinds.items()
    }
