"""Planted worlds: is an interest found in the only modality that shows it, and lost without it?

For each modality a synthetic world (``feature_repo.sources.synthetic_planted``) is built, trained
on, and asked for the buyers of the next four weeks in words that no event before used. The same is
done without any sign of the interests, which is the same world whichever modality showed them. The
oracle knows who holds the interest. **Synthetic data.**
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.sources.synthetic_planted import PLANTED, truth
from feature_repo.sources.synthetic_world import PLANTS, World, parse
from feature_repo.transforms import micros, open_tables
from ray_jobs import metrics
from ray_jobs.build_features import build, ingest
from ray_jobs.evaluation import decoys
from ray_jobs.evaluation.subject import Subject
from ray_jobs.pipeline import train_and_embed
from ray_jobs.presets import Preset
from ray_jobs.training_frames import Run
from ray_jobs.workers import Workers

DAYS = 28
USERS = 3_000


@dataclass(frozen=True)
class PlantedWorld:
    """One world to be built, trained on and asked."""

    plant: str
    removed: bool
    users: int = USERS
    seed: int = 0

    @property
    def spec(self) -> str:
        without = f",without={self.plant}" if self.removed else ""
        return f"synthetic:users={self.users},seed={self.seed},plant={self.plant}{without}"

    @property
    def world(self) -> World:
        return parse(self.spec.partition(":")[2])


def worlds(users: int = USERS) -> list[PlantedWorld]:
    """One for each modality, and the one that all become when the interests' signs are taken."""
    shown = [PlantedWorld(plant, False, users) for plant in PLANTS]
    return [*shown, PlantedWorld(PLANTS[0], True, users)]


def measure(
    one: PlantedWorld, root: Path, preset: Preset, workers: int = 0, *, seed: int = 0
) -> dict[str, Any]:
    """Mean AUC over the planted topics: of the oracle, and of each way to ask.

    Args:
        seed: of the training; the world's own is part of it.
    """
    # Seeds share no workspace: they may be measured at the same time.
    name = f"{one.spec}-{seed}".replace(":", "-").replace(",", "-").replace("=", "")
    workspace = Workspace(root / name)
    dataset = ingest(workspace, one.spec, demographics=True)
    as_of = one.world.default_as_of
    build(workspace, dataset, as_of)
    shared = Run(workspace, dataset, as_of, preset, seed, Workers(workers))
    manifest = SnapshotStore(workspace).load(train_and_embed(shared))
    subject = Subject(workspace, manifest, dataset)
    con = open_tables(workspace.root / dataset.tables)
    users = [f"s{n}" for n in range(one.users)]
    held, bought = truth(one.spec).held_at(as_of), buyers(con, one, users)
    con.close()
    vectors = subject.vectors("fused")
    known = _Known(subject.users, users)
    encoder = subject.query_encoder("catalogue")  # which reads the demands with decoys
    found: dict[str, Any] = {"plant": one.plant, "removed": one.removed, "users": one.users,
                             "positives": int(bought.sum())}  # fmt: skip
    found["oracle"] = mean_auc(held[known.rows], bought[known.rows])
    for n, wording in enumerate(("name", "free words")):
        queries = encoder.encode([topic.demands[n] for topic in PLANTED])
        found[wording] = mean_auc(vectors[known.at] @ queries.T, bought[known.rows])
    if not one.removed:
        names = [topic.name for topic in PLANTED]
        found["decoys"] = decoys.measure(
            encoder, vectors[known.at], held[known.rows], bought[known.rows], names
        )
    return found


class _Known:
    """Users that the snapshot knows: their rows in the world, and in the matrix."""

    def __init__(self, listed: Sequence[str], users: Sequence[str]):
        position = {user: row for row, user in enumerate(listed)}
        self.rows = np.array([n for n, user in enumerate(users) if user in position])
        self.at = np.array([position[users[n]] for n in self.rows])


def buyers(
    con: duckdb.DuckDBPyConnection, one: PlantedWorld, users: Sequence[str]
) -> np.ndarray:  # fmt: skip
    """Who buys goods of which topic in the four weeks from the date: bool [users, topics]."""
    start = one.world.default_as_of
    rows = con.sql(
        """SELECT DISTINCT user_id, categories[2] FROM known_events JOIN items USING (item_id)
        WHERE categories[1] = 'goods' AND epoch_us(timestamp) >= $start
          AND epoch_us(timestamp) < $end""",
        params={"start": micros(start), "end": micros(start + timedelta(days=DAYS))},
    ).fetchall()
    topics = [topic.name for topic in PLANTED]
    position = {user: row for row, user in enumerate(users)}
    bought = np.zeros((len(users), len(topics)), bool)
    for user, name in rows:
        bought[position[user], topics.index(name)] = True
    return bought


def mean_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over topics (columns)."""
    return metrics.mean(
        metrics.auc(scores[:, k], labels[:, k]) for k in range(labels.shape[1])
    )  # fmt: skip
