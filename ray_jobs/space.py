"""A space: the checkpoints whose vectors move together, and what they say of users at a date.

Mostly it is one alignment checkpoint. Another model's embedding (ShopperBERT's) may stand in the
same snapshot, beside it or alone; the space's identity then covers all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.past import collate_for, encode_rows, num_windows
from encoders.purchases import PurchaseCollate
from encoders.shopper_bert import ShopperBert
from feature_repo.errors import InputError
from feature_repo.settings import Workspace
from feature_repo.store import FeatureStore
from feature_repo.transforms import micros, open_tables, users_before, window_ends
from ray_jobs import frames, retrieval
from ray_jobs.build_features import Dataset
from ray_jobs.command import parse_date

_PURCHASE_BATCH = 64  # users, each with several stretches of their log


@dataclass(frozen=True)
class Part:
    """One checkpoint of a space."""

    model: nn.Module
    info: checkpoint.CheckpointInfo
    directory: Path
    sha256: str
    feature_hash: str  # of the views it reads


@dataclass(frozen=True)
class Space:
    """An embedding function: its models by name (``checkpoint.MODELS``), and its identity."""

    id: str
    parts: dict[str, Part]

    @property
    def trained_as_of(self) -> datetime:
        """Everything known strictly before this may be in the weights."""
        return max(parse_date(part.info.trained_as_of) for part in self.parts.values())

    @property
    def horizon_days(self) -> int:
        """The horizon that sentences speak of, where there are sentences."""
        first = self.parts.get("alignment") or next(iter(self.parts.values()))
        return first.info.horizon_days

    @property
    def feature_hash(self) -> str:
        """Of the feature definitions that the models read."""
        hashes = [part.feature_hash for part in self.parts.values()]
        return hashes[0] if len(hashes) == 1 else _hash("".join(hashes))

    @property
    def fingerprint(self) -> list[str]:
        """The hashes of all weights."""
        return [part.sha256 for part in self.parts.values()]


def open_space(workspace: Workspace, directories: Sequence[Path]) -> Space:
    """The space of these checkpoints under the workspace's feature definitions.

    Raises:
        InputError: two hold the same model, one holds none that embeds users, or one was trained
            on other feature definitions.
    """
    parts: dict[str, Part] = {}
    for directory in directories:
        model, info = checkpoint.load(directory)
        if info.model not in _VECTORS or info.model in parts:
            raise InputError(
                f"checkpoint: expected one each of {sorted(_VECTORS)} at most, got {info.model!r} "
                f"in {directory}"
            )
        current = FeatureStore(workspace).feature_hash(retrieval.views_of(info.model))
        if info.feature_hash != current:
            raise InputError(
                f"checkpoint: {directory} was trained on other feature definitions "
                f"({info.feature_hash[:8]}…, now {current[:8]}…): train again"
            )
        sha256 = checkpoint.fingerprint(directory)
        parts[info.model] = Part(model, info, directory, sha256, current)
    ordered = dict(sorted(parts.items()))
    identity = _hash("".join(part.sha256 + part.feature_hash for part in ordered.values()))
    return Space(identity[:16], ordered)


def embed_at(
    workspace: Workspace, dataset: Dataset, space: Space, date: datetime
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Every user known before ``date`` and their vectors by kind, float32 [N, dim]."""
    con = open_tables(workspace.root / dataset.tables)
    users, weeks = users_before(con, date), len(window_ends(con, date))
    con.close()
    vectors: dict[str, np.ndarray] = {}
    for name, part in space.parts.items():
        vectors |= _VECTORS[name](workspace, part.model, users, date, weeks)
    return users, vectors


def _found_vectors(
    workspace: Workspace, model: FoundModel, users: list[str], date: datetime, weeks: int
) -> dict[str, np.ndarray]:
    ends = retrieval.window_grid(date, num_windows(model))
    tables = retrieval.weekly_rows(workspace, users, ends)
    history, _ = frames.past(tables, workspace.cache, model.config.text.model)
    rows = history.rows(users, [micros(date)] * len(users))
    if (missing := int((rows < 0).sum())) > 0:
        raise InputError(
            f"date: {missing} of {len(users)} users have no weekly row at {date:%Y-%m-%d}; run "
            "`python -m ray_jobs.build_features` as of that date"
        )
    return encode_rows(model, collate_for(model, history), rows)


def _purchase_vectors(
    workspace: Workspace, model: ShopperBert, users: list[str], date: datetime, weeks: int
) -> dict[str, np.ndarray]:
    ends = retrieval.window_grid(date, weeks)
    views = retrieval.views_of("shopper_bert")
    tables = retrieval.weekly_rows(workspace, users, ends, views)
    history = frames.purchases(tables, workspace.cache)
    collate = PurchaseCollate(history, model.config.vocabularies)
    return {"shopper_bert": encode_purchases(model, collate, users)}


@torch.inference_mode()
def encode_purchases(
    model: ShopperBert, collate: PurchaseCollate, users: Sequence[str]
) -> np.ndarray:
    """Vectors of users from all purchases of the history, float32 [n, dim]; 0 without any."""
    pieces = [np.zeros((0, model.width), np.float32)]
    for start in range(0, len(users), _PURCHASE_BATCH):
        batch = collate.latest(users[start : start + _PURCHASE_BATCH], **model.config.read)
        pieces.append(model(batch).float().numpy())
    return np.concatenate(pieces)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_VECTORS: dict[str, Any] = {"alignment": _found_vectors, "shopper_bert": _purchase_vectors}
