"""ShopperBERT trained anew on given tables: the variants that tables compare.

Each variant has a workspace of its own below OUT, trained and embedded by the same stages as a
snapshot, whose finished stages are reused. Nothing is published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import durable
from feature_repo.schema import CANONICAL
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import DAY_US, micros
from ray_jobs import presets
from ray_jobs.build_features import Dataset, build
from ray_jobs.evaluation.ablations import Variant
from ray_jobs.pipeline import train_and_embed
from ray_jobs.training_frames import Run
from ray_jobs.workers import Workers

PRESET = "shopper_bert"
OURS = Variant("counts + A (ours)")
_MEAN = {"shopper_bert.pooling": "mean"}
_PLAIN = {"shopper_bert.augment_share": 0.0}
_CLS = {"shopper_bert.variant": "cls"}
AUGMENTATION = (
    Variant("MP", _MEAN | _PLAIN),
    Variant("MP + A", _MEAN),
    Variant("CLS", _MEAN | _CLS | _PLAIN),
    Variant("CLS + A", _MEAN | _CLS),
    OURS,
)
"""The four pre-trainings of Table 4, and the preset's own."""

MONTHS = (1, 3, 6, 10)
_MONTH_DAYS = 30.4


@dataclass(frozen=True)
class Pretrained:
    """Embeddings of one variant, and where its checkpoint lies."""

    users: list[str]
    vectors_NU: np.ndarray  # float32
    checkpoint: Path

    def of(self, users: Sequence[str]) -> np.ndarray:
        """Vectors of these users; one without any purchase has the cold vector, 0."""
        row = {user: n for n, user in enumerate(self.users)}
        padded = np.concatenate([self.vectors_NU, np.zeros_like(self.vectors_NU[:1])])
        return padded[[row.get(user, -1) for user in users]]


def pretrain(
    root: Path, name: str, tables: Mapping[str, pa.Table] | Path, as_of: datetime,
    variant: Variant, *, workers: int = 0, seed: int = 0, cache: Path | None = None,
) -> Pretrained:  # fmt: skip
    """Train the variant on canonical tables and embed everybody as of a date.

    Args:
        root: workspace of the variant; made if it is not there.
        name: of the data set.
        tables: canonical tables, or the directory that holds them.
        cache: directory of sentence vectors that are known already.
    """
    workspace = Workspace(root)
    if isinstance(tables, Path):
        directory = tables
    else:
        directory = root / "tables" / "given"
        for each in CANONICAL:
            _write(tables.get(each, CANONICAL[each].empty_table()), directory / f"{each}.parquet")
    if cache is not None and not workspace.cache.exists():
        workspace.cache.parent.mkdir(parents=True, exist_ok=True)
        workspace.cache.symlink_to(cache.resolve(), target_is_directory=True)
    dataset = Dataset(name, False, name, False, str(directory))
    build(workspace, dataset, as_of)
    preset = variant.of(presets.preset(PRESET))
    shared = Run(workspace, dataset, as_of, preset, seed, Workers(workers))
    manifest = SnapshotStore(workspace).load(train_and_embed(shared))
    users: list[str] = pq.read_table(root / manifest.users)["user_id"].to_pylist()
    return Pretrained(
        users, np.load(root / manifest.entry("shopper_bert").matrix),
        root / manifest.checkpoints["shopper_bert"].path,
    )  # fmt: skip


def latest_months(
    con: duckdb.DuckDBPyConnection, as_of: datetime, months: int
) -> dict[str, pa.Table]:
    """Canonical tables whose purchases lie in the last months before a date (Figure 3)."""
    since = micros(as_of) - round(months * _MONTH_DAYS * DAY_US)
    events = con.sql(
        "SELECT * FROM events WHERE epoch_us(timestamp) >= $since ORDER BY event_id",
        params={"since": since},
    ).to_arrow_table()
    items = con.sql("SELECT * FROM items ORDER BY item_id").to_arrow_table()
    found: dict[str, Any] = {"events": events, "items": items}
    return {name: table.cast(CANONICAL[name]) for name, table in found.items()}


def _write(table: pa.Table, path: Path) -> None:
    with durable.replacing(path) as temporary:
        pq.write_table(table, temporary, coerce_timestamps="us")
