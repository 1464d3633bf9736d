"""A tiny preset and a synthetic world of 120 users, trained once per session; tests take copies."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from encoders.behaviour import BehaviourConfig
from encoders.habits import HabitConfig
from encoders.search import SearchConfig
from encoders.shopper_bert import ShopperBertConfig
from encoders.tabular import TabularConfig
from encoders.text import TextConfig
from feature_repo import schema
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.sources import CanonicalTables, read_source
from ray_jobs import presets, train
from ray_jobs.build_features import Dataset, build, ingest
from ray_jobs.embed import embed
from ray_jobs.presets import Preset
from ray_jobs.training_frames import Run
from ray_jobs.workers import Workers

SPEC = "synthetic:users=120,seed=0,weeks=30"
AS_OF = datetime(2024, 6, 17, tzinfo=UTC)  # 24 weeks in: six are left
WEEK = timedelta(days=7)
PRETRAINED = ("behaviour", "tabular", "search")
STAGES = (*PRETRAINED, "alignment")
VIEWS = (
    "behaviour_weekly", "profile_weekly", "search_weekly", "habits_weekly", "purchases_weekly",
)  # fmt: skip


def tiny_preset() -> Preset:
    """The structure of `best`, its encoders 16 wide, and six steps per stage."""
    best = presets.best()
    return replace(
        best,
        name="tiny",
        horizon_days=14,
        num_cutoffs=3,
        cutoff_step_days=14,
        behaviour=BehaviourConfig(
            dim=16, line_hidden=16, temporal_dim=16, layers=1, heads=2, windows=8,
            pretrain_windows=7, forecast_windows=2, forecast_steps=2,
        ),
        tabular=TabularConfig(dim=8, out_dim=16, blocks=1, heads=2),
        search=SearchConfig(
            vocabulary=30_522, dim=16, out_dim=16, layers=1, heads=2, max_tokens=24,
            generator_dim=16,
        ),
        text=TextConfig(dim=384, projection="near_identity", rank=4, lora_rank=2),
        habits=HabitConfig(ways=2, hidden=8, rank=2, windows=12),
        shopper_bert=ShopperBertConfig(dim=16, layers=1, heads=2, length=12, stretches=2),
        windows=8,
        fusion_dim=16,
        fusion_layers=1,
        max_facts=60,
        num_sentences=16,
        tuned_steps=2,
        tuned_sentences=12,
        stages={
            name: replace(
                stage, steps=6, batch_size=16, report_every=2, warmup_steps=2, learning_rate=1e-3
            )
            for name, stage in best.stages.items()
        },
    )  # fmt: skip


PRESETS: dict[str, Callable[[], Preset]] = {
    "tiny": tiny_preset,
    "still": lambda: presets.untrained(tiny_preset()),  # no step at all: weights stay as they begin
}


@dataclass(frozen=True)
class Place:
    """A workspace and the data set in it."""

    workspace: Workspace
    dataset: Dataset

    def shared(
        self,
        *,
        as_of: datetime = AS_OF,
        seed: int = 0,
        preset: Preset | None = None,
        workers: Workers | None = None,
        precision: str = "float32",
    ) -> Run:
        """What the stages of one build share."""
        return Run(
            self.workspace, self.dataset, as_of, preset or tiny_preset(), seed,
            workers or Workers(), precision,
        )  # fmt: skip

    def train(self, stage: str, **more: Any) -> dict[str, Any]:
        """``python -m ray_jobs.train --stage …`` in this process."""
        return train.run(
            train.Train(
                **{"workspace": self.root, "stage": stage, "as_of": AS_OF, "preset": "tiny"} | more
            )
        )

    @property
    def root(self) -> str:
        return str(self.workspace.root)

    def checkpoint(self, stage: str) -> Path:
        """The checkpoint of a stage; there must be just one."""
        (found,) = self.workspace.checkpoints.glob(f"{stage}-*")
        return found

    def start(self) -> dict[str, str]:
        """The pre-trained checkpoints, as alignment starts from them."""
        return {stage: str(self.checkpoint(stage)) for stage in PRETRAINED}

    def matrix(self, kind: str = "fused", snapshot: str | None = None) -> np.ndarray:
        """The vectors of one kind of a snapshot; without an id there must be just one snapshot."""
        store = SnapshotStore(self.workspace)
        if snapshot is None:
            (manifest,) = store.list()
        else:
            manifest = store.load(snapshot)
        return np.load(self.workspace.root / manifest.entry(kind).matrix)

    def forget(self, *stages: str) -> None:
        """Remove what these training stages left, as if they had never run."""
        for stage in stages:
            runs = self.workspace.root / "runs"
            for path in [*self.workspace.checkpoints.glob(f"{stage}-*"), *runs.glob(f"{stage}-*")]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for record in (self.workspace.root / "stages").glob(f"train-{stage}-*.json"):
                record.unlink()

    def progress(self, stage: str) -> list[dict[str, Any]]:
        """What worker 0 of a stage reported, over all runs of it, oldest first."""
        files = (self.workspace.root / "runs").glob("*.jsonl")
        texts = [path.read_text() for path in sorted(files, key=lambda p: p.stat().st_mtime_ns)]
        lines = [json.loads(line) for text in texts for line in text.splitlines()]
        return [line for line in lines if line["stage"] == stage]

    def align(self, **more: Any) -> Path:
        """Alignment from the pre-trained checkpoints, as the pipeline does it; its checkpoint."""
        wanted = {"alignment": self.start()}
        record = train.train_stages(self.shared(**more), wanted)["alignment"]
        return self.workspace.root / record["checkpoint"]


def lay(root: Path, tables: dict[str, pa.Table], source: str = SPEC) -> Place:
    """A workspace that holds these canonical tables, as :func:`ingest` would leave it."""
    workspace = Workspace(root)
    (workspace.tables / "laid").mkdir(parents=True)
    for name, canonical in schema.CANONICAL.items():
        path = workspace.tables / "laid" / f"{name}.parquet"
        table = tables.get(name, canonical.empty_table()).cast(canonical)
        pq.write_table(table, path, coerce_timestamps="us")
    dataset = Dataset(source, True, "synthetic", True, "tables/laid")
    workspace.dataset_file.write_text(json.dumps(dataset.__dict__))
    return Place(workspace, dataset)


@pytest.fixture(scope="session")
def bench() -> ModuleType:
    """This module: its constants and functions, which a test file cannot import."""
    return sys.modules[__name__]


@pytest.fixture(scope="session", autouse=True)
def tiny_presets() -> Iterator[None]:
    """``--preset tiny`` works, and so does ``--preset still``, which takes no step."""
    torch.set_num_threads(1)
    presets.PRESETS.update(PRESETS)
    yield
    for name in PRESETS:
        del presets.PRESETS[name]


@pytest.fixture(autouse=True)
def no_outer_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests see nothing of the developer's own stores and clusters."""
    for name in ("OPENFOUND_MILVUS_URI", "OPENFOUND_REDIS_URL", "OPENFOUND_WORKSPACE",
                 "RAY_ADDRESS"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def world() -> CanonicalTables:
    """The synthetic world's canonical tables."""
    return read_source(SPEC)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Ingested, built, every stage trained, embedded; nothing published. Not to be changed."""
    workspace = Workspace(tmp_path_factory.mktemp("trained"))
    place = Place(workspace, ingest(workspace, SPEC, demographics=True))
    build(workspace, place.dataset, AS_OF)
    for stage in PRETRAINED:
        place.train(stage)
    # What a run knew before it met a sentence: resuming must not lean on a fuller cache.
    shutil.copytree(workspace.cache, workspace.root / "cache-before-alignment")
    place.align()
    embed(workspace, place.dataset, place.checkpoint("alignment"), [AS_OF])
    return place


@pytest.fixture(scope="session")
def trained(_trained: Place) -> Place:
    """The session's trained workspace, for reading only."""
    return _trained


@pytest.fixture
def copy(_trained: Place, tmp_path: Path) -> Place:
    """A copy of the trained workspace that a test may change."""
    root = tmp_path / "workspace"
    # Feast's registry holds absolute paths: it is derived, and made anew.
    shutil.copytree(_trained.workspace.root, root, ignore=shutil.ignore_patterns("feast"))
    return Place(Workspace(root), _trained.dataset)


@pytest.fixture
def planted_place(_trained: Place, tmp_path: Path) -> Callable[[dict[str, pa.Table]], Place]:
    """``planted_place(tables)``: a workspace with these tables and the session's line vectors."""

    def make(tables: dict[str, pa.Table]) -> Place:
        place = lay(tmp_path / f"planted-{len(list(tmp_path.iterdir()))}", tables)
        shutil.copytree(_trained.workspace.cache, place.workspace.cache)
        return place

    return make
