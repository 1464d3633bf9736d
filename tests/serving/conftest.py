"""A tiny workspace: 40 users, random embeddings, and snapshots that can be asked with a sentence.

``World.publish`` writes a whole snapshot. Its text tower is a fake that hashes the sentence, or,
for the test of the real process, a real one (a small ``FoundModel`` over the real MiniLM).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from encoders.catalogue import Subject
from encoders.checkpoint import fingerprint
from encoders.demand import DemandParser
from encoders.demand_subjects import Subjects
from encoders.posterior import Doubt, Population, posterior_query
from encoders.prompt import Prompt, TuneConfig
from encoders.query import Query
from feature_repo import durable, schema
from feature_repo.facts import write_facts
from feature_repo.manifest import (
    CheckpointEntry,
    FactsEntry,
    KindEntry,
    Manifest,
    collection_name,
    view_name,
)
from feature_repo.matrix import Matrix
from feature_repo.rule_filter import RuleFilter
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore, part_name
from feature_repo.transforms import open_tables
from sdk.explaining import Contribution, Explained
from serving.explain import Explainer
from serving.live import LiveSnapshot, Opener

AS_OF = datetime(2017, 9, 11, tzinfo=UTC)
NUM_USERS, DIM = 40, 16
ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
USERS = [f"u{n * 7 % NUM_USERS}" for n in range(NUM_USERS)]  # in no order
KINDS = ("behaviour", "tabular", "fused")


class HashEncoder:
    """A text tower whose vectors come from the sentence's hash; it counts its calls."""

    def __init__(self, directory: Path | None = None, dim: int = DIM) -> None:
        self.dim, self.asked = dim, 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += len(texts)
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        rows = [np.random.default_rng(seed).standard_normal(self.dim) for seed in seeds]
        return np.stack(rows).astype(np.float32)

    def understand(self, text: str, *, rewrite: bool) -> Query:
        return Query(self.encode([text])[0])

    def tune(
        self,
        text: str,
        positives: np.ndarray,
        negatives: np.ndarray,
        population: np.ndarray,
        *,
        method: str = "posterior",
        each_step: Callable[[], None] | None = None,
    ) -> Prompt:
        """By the real posterior, whatever the method."""
        query = posterior_query(
            self.encode([text])[0], positives, negatives, Population.of(population, power=0.0),
            doubts=[Doubt(share=1.0, error=1.0, noise=1.0)],
        )  # fmt: skip
        return Prompt(text, np.zeros((0, 4), np.float32), query, TuneConfig())


class MatrixFeatures:
    """The online store's answers, read from the matrix."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def online_embeddings(
        self, manifest: Manifest, kind: str, user_ids: Sequence[str]
    ) -> tuple[list[str], np.ndarray]:
        matrix = Matrix.open(manifest, kind, self.workspace)
        found = [user for user in user_ids if user in matrix.ids]
        return found, matrix.vectors[[matrix.ids.index(user) for user in found]]


def write_facts_of(staged: Path, as_of: datetime) -> FactsEntry:
    """Facts of a made-up shop: the user un is n years old and bought cat food n days ago."""
    when = [as_of - timedelta(days=int(user[1:]), hours=1) for user in USERS]
    events = [
        {"event_id": user, "user_id": user, "timestamp": t, "known_at": t, "source": "bill",
         "item_id": "i1", "amount": 3.0}
        for user, t in zip(USERS, when, strict=True)
    ]  # fmt: skip
    items = [{"item_id": "i1", "text": "cat food", "categories": ["PETS", "CAT FOOD"]}]
    con = open_tables(
        {
            "events": pa.Table.from_pylist(events, schema=schema.EVENTS),
            "items": pa.Table.from_pylist(items, schema=schema.ITEMS),
        }
    )
    profiles = pa.table({"user_id": USERS, "profile_age": [float(user[1:]) for user in USERS]})
    try:
        return write_facts(con, profiles, USERS, as_of, staged, f"snapshots/{staged.name}")
    finally:
        con.close()


def shop_reader(
    workspace: Workspace, manifest: Manifest, rules: RuleFilter, encoders: object
) -> DemandParser | None:
    """Reads demands in the words of the made-up shop."""
    if manifest.facts is None:
        return None
    ground = Subjects([Subject("purchase", "CAT FOOD", 2, "PETS", 9)])
    return DemandParser(rules.vocabulary, ground, as_of=manifest.as_of)


class OneReason(Explainer):
    """Explains every score by one purchase of cat food; the real one is tested on real weights."""

    def __init__(self, *collaborators: object) -> None:
        self.weeks, self._matrix = 52, collaborators[3]["fused"]

    def rows(self, users: Sequence[str]) -> dict[str, pa.Table]:
        return {}

    def __call__(
        self, tables: object, user: str, row: int, query: np.ndarray, *, top: int
    ) -> Explained:
        score = float(self._matrix.vectors[row] @ query)
        part = Contribution(
            words="bought cat food in the week before 2017-09-11", modality="behaviour",
            name="CAT FOOD", verb="bought", week_end=AS_OF, weeks=1, contribution=score,
        )  # fmt: skip
        return Explained(
            user_id=user, score=score, base=0.0, modalities={"behaviour": score},
            contributions=[part], rest=0.0, unexplained=0.0, decisive=[part], score_without=0.0,
            latest=[], sentences=[],
        )  # fmt: skip


class World:
    """A workspace that snapshots can be published in."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.store = SnapshotStore(self.workspace)

    def checkpoint(self, name: str = "one") -> Path:
        """A directory with the files of a checkpoint, enough for the fake tower."""
        directory = self.workspace.checkpoints / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(f'{{"name": "{name}"}}')
        (directory / "model.safetensors").write_bytes(name.encode())
        return directory

    def publish(
        self,
        seed: int,
        *,
        kinds: tuple[str, ...] = KINDS,
        checkpoint: Path | None = None,
        space: str = "a1b2c3d4e5",
        live: bool = False,
        synthetic: bool = False,
        facts: bool = False,
    ) -> Manifest:
        """Commit a snapshot with random embeddings, and make it live if asked to."""
        directory = checkpoint or self.checkpoint()
        as_of = AS_OF + timedelta(weeks=seed)
        snapshot_id = self.store.new_id(space, as_of)
        staged = self.store.stage(snapshot_id)
        pq.write_table(pa.table({"user_id": USERS}), staged / "users.parquet")
        entries = {kind: self._kind(staged, snapshot_id, kind, seed, as_of) for kind in kinds}
        written = write_facts_of(staged, as_of) if facts else None
        relative = str(directory.relative_to(self.workspace.root))
        manifest = Manifest(
            id=snapshot_id,
            space=space,
            as_of=as_of,
            trained_as_of=AS_OF,
            horizon_days=28,
            created_at=AS_OF + timedelta(hours=seed),
            feature_hash="0" * 64,
            checkpoints={
                "alignment": CheckpointEntry(path=relative, sha256=fingerprint(directory))
            },
            kinds=entries,
            num_users=NUM_USERS,
            users=f"snapshots/{snapshot_id}/users.parquet",
            reports=[],
            built_by="test",
            version="0",
            source="test",
            synthetic=synthetic,
            facts=written,
        )
        self.store.commit(manifest)
        if live:
            self.store.activate(snapshot_id)
        return manifest

    def live(self, opener: Opener | None = None) -> LiveSnapshot:
        """The live snapshot, opened with fakes."""
        return LiveSnapshot(
            self.store, opener or Opener(self.workspace, HashEncoder, MatrixFeatures)
        )

    def reading(self) -> LiveSnapshot:
        """The same, with a reader of demands over the made-up shop's words, and reasons."""
        return self.live(
            Opener(
                self.workspace, HashEncoder, MatrixFeatures, reader=shop_reader, explainer=OneReason
            )
        )

    @staticmethod
    def _kind(staged: Path, snapshot_id: str, kind: str, seed: int, as_of: datetime) -> KindEntry:
        rng = np.random.default_rng([seed, len(kind)])
        vectors = rng.standard_normal((NUM_USERS, DIM)).astype(np.float32)
        vectors[::5] = vectors[0]  # ties
        Matrix.write(staged / f"matrix/{kind}.npy", vectors)
        part = staged / f"embeddings/{kind}" / part_name(as_of)
        part.parent.mkdir(parents=True)
        times = pa.array([as_of] * NUM_USERS, schema.TIMESTAMP)
        rows = {
            "user_id": USERS,
            "event_timestamp": times,
            "created": times,
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
            "space": ["a1b2c3d4e5"] * NUM_USERS,
            "snapshot": [snapshot_id] * NUM_USERS,
            "trained_as_of": times,
        }
        pq.write_table(pa.table(rows, schema=schema.EMBEDDING), part, coerce_timestamps="us")
        return KindEntry(
            kind=kind,
            dim=DIM,
            count=NUM_USERS,
            parts=[f"snapshots/{snapshot_id}/embeddings/{kind}/{part.name}"],
            view=view_name(kind, snapshot_id),
            collection=collection_name(kind, snapshot_id),
            matrix=f"snapshots/{snapshot_id}/matrix/{kind}.npy",
            matrix_sha256=durable.sha256(staged / f"matrix/{kind}.npy"),
        )


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests see nothing of the developer's own services, stores and clusters."""
    names = ("URL", "API_KEY", "API_KEYS", "WORKSPACE", "MILVUS_URI", "REDIS_URL", "DATABASE_URL")
    for name in names:
        monkeypatch.delenv(f"OPENFOUND_{name}", raising=False)
    for name in ("ADDRESS", "AUTH_MODE", "AUTH_TOKEN", "AUTH_TOKEN_PATH"):
        monkeypatch.delenv(f"RAY_{name}", raising=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What ``open_database`` opens: each test runs on SQLite, and on a PostgreSQL of its own."""
    if request.param == "sqlite":
        yield request.param
        return
    postgres = request.getfixturevalue("postgres")
    admin = sa.create_engine(postgres.url(), poolclass=sa.NullPool)
    schema = f"test_{secrets.token_hex(4)}"
    with admin.begin() as connection:
        connection.execute(sa.schema.CreateSchema(schema))
    monkeypatch.setenv("OPENFOUND_DATABASE_URL", postgres.url(schema))
    yield request.param
    with admin.begin() as connection:  # engines keep connections, and a server has only so many
        connection.execute(sa.text(ENDED))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty workspace."""
    return World(tmp_path / "workspace")
