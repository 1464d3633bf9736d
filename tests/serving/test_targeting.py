"""Targeting over real matrices, with fakes for the text tower, Milvus and the online store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.errors import (
    ManifestError,
    MissingKind,
    NoLiveSnapshot,
    SpaceMismatch,
    UnknownSnapshot,
    VectorsUnavailable,
)
from feature_repo.manifest import Manifest
from feature_repo.matrix import Matrix
from feature_repo.vectors import MILVUS_LIMIT
from sdk.types import EmbeddingsRequest, TargetRequest
from serving import nearest as nearest_module
from serving.live import CannotOpen, LiveSnapshot, Opened, Opener
from serving.nearest import Nearest, Rows
from serving.targeting import NoSentences, Targeting

TEXT = "households that will buy diapers"


class FakeMilvus:
    """Answers as Milvus does: scores off by a bit or so, ties in any order; or not at all."""

    def __init__(self, world: Any) -> None:
        self.world, self.searches, self.connections = world, 0, 0
        self.away = False
        self.drop = 0

    def connect(self) -> FakeMilvus:
        self.connections += 1
        if self.away:
            raise VectorsUnavailable("nothing answers")
        return self

    def search(self, collection: str, query: np.ndarray, k: int) -> tuple[list[str], np.ndarray]:
        self.searches += 1
        if self.away:
            raise VectorsUnavailable("connection lost")
        kind, snapshot_id = collection.split("__")
        matrix = Matrix.open(self.world.store.load(snapshot_id), kind, self.world.workspace)
        noise = np.random.default_rng(self.searches).uniform(-1e-6, 1e-6, len(matrix.ids))
        scores = (matrix.vectors @ query + noise).astype(np.float32)
        order = np.argsort(-scores)[: k - self.drop]
        return [matrix.ids[row] for row in order], scores[order]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def milvus(world: Any) -> FakeMilvus:
    return FakeMilvus(world)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def targeting(world: Any, milvus: FakeMilvus, clock: Clock) -> Targeting:
    return Targeting(world.live(), Nearest(milvus.connect, clock=clock))


def ask(**fields: Any) -> TargetRequest:
    return TargetRequest(**{"text": TEXT, "size": 7, **fields})


# --- engines


def test_milvus_and_the_scan_give_the_same_users_scores_and_order(
    world: Any, targeting: Targeting
) -> None:
    world.publish(1, live=True)
    for size in (1, 7, 8, 39, 40, 1_000):
        for text in ("milk", "bread", "beer"):
            near = targeting.target(ask(text=text, size=size))
            exact = targeting.target(ask(text=text, size=size, exact=True))
            assert (near.meta.engine, exact.meta.engine) == ("milvus", "scan")
            assert near.user_ids == exact.user_ids
            assert near.scores.tolist() == exact.scores.tolist()
            pairs = list(zip((-exact.scores).tolist(), exact.user_ids, strict=True))
            assert pairs == sorted(pairs) and len(pairs) == min(size, 40)


def test_an_audience_says_where_it_comes_from(world: Any, targeting: Targeting) -> None:
    manifest = world.publish(1, live=True, synthetic=True)
    meta = targeting.target(ask()).meta
    assert (meta.snapshot, meta.space, meta.as_of) == (manifest.id, manifest.space, manifest.as_of)
    assert (meta.horizon_days, meta.population) == (28, 40)
    assert meta.notes == ["This snapshot was built from synthetic data."]


def test_a_size_above_the_population_returns_everybody_with_a_note(
    world: Any, targeting: Targeting
) -> None:
    world.publish(1, live=True)
    answer = targeting.target(ask(size=41))
    assert sorted(answer.user_ids) == sorted(targeting.live.get().matrices["fused"].ids)
    assert answer.meta.notes == ["There are only 40 users, so all of them are returned."]
    assert targeting.target(ask(size=40)).meta.notes == []


def test_sizes_beyond_milvus_limit_and_exact_ones_go_to_the_scan(
    world: Any, targeting: Targeting, milvus: FakeMilvus
) -> None:
    world.publish(1, live=True)
    assert targeting.target(ask(size=MILVUS_LIMIT)).meta.engine == "milvus"
    assert targeting.target(ask(size=MILVUS_LIMIT + 1)).meta.engine == "scan"
    assert targeting.target(ask(exact=True)).meta.engine == "scan"
    assert milvus.searches == 1


def test_without_milvus_at_all_the_scan_answers(world: Any) -> None:
    world.publish(1, live=True)
    answer = Targeting(world.live(), None).target(ask())
    assert (answer.meta.engine, answer.meta.notes) == ("scan", [])


def test_when_milvus_goes_the_scan_answers_and_when_it_is_back_milvus_does(
    world: Any, targeting: Targeting, milvus: FakeMilvus, clock: Clock
) -> None:
    world.publish(1, live=True)
    before = targeting.target(ask())
    milvus.away = True
    for _ in range(5):
        answer = targeting.target(ask())
        assert answer.meta.engine == "scan" and "Milvus is away" in answer.meta.notes[0]
        assert answer.user_ids == before.user_ids
    assert (milvus.connections, milvus.searches) == (1, 2)  # left alone after the first failure

    clock.now += nearest_module.RETRY_SECONDS
    assert targeting.target(ask()).meta.engine == "scan"
    assert targeting.target(ask()).meta.engine == "scan"
    assert milvus.connections == 2  # one try per pause

    milvus.away = False
    assert targeting.target(ask()).meta.engine == "scan"
    clock.now += nearest_module.RETRY_SECONDS
    assert targeting.target(ask()).meta.engine == "milvus"
    assert targeting.target(ask()).meta.notes == []


def test_a_collection_that_is_short_of_rows_is_not_believed(
    world: Any, targeting: Targeting, milvus: FakeMilvus
) -> None:
    world.publish(1, live=True)
    milvus.drop = 1
    answer = targeting.target(ask(size=40))
    assert answer.meta.engine == "scan" and len(answer.user_ids) == 40


def test_a_collection_with_strangers_is_not_believed(world: Any) -> None:
    class Strangers(FakeMilvus):
        def search(self, collection: str, query: Any, k: int) -> tuple[list[str], np.ndarray]:
            return [f"stranger {n}" for n in range(k)], np.zeros(k, np.float32)

    world.publish(1, live=True)
    answer = Targeting(world.live(), Nearest(Strangers(world).connect)).target(ask())
    assert answer.meta.engine == "scan" and not any("stranger" in u for u in answer.user_ids)


def test_rows_are_found_in_any_order_also_for_odd_ids() -> None:
    ids = ["b", "a", "ü", "日本", "10", "9", "a b"]
    rows = Rows(Matrix(np.zeros((len(ids), 2), np.float32), nearest_module.pa.array(ids)))
    assert rows.of([*reversed(ids), "missing", "zz"]).tolist() == [6, 5, 4, 3, 2, 1, 0, -1, -1]
    empty = Rows(Matrix(np.zeros((0, 2), np.float32), nearest_module.pa.array([], "string")))
    assert empty.of(["a"]).tolist() == [-1]


# --- kinds


@pytest.mark.parametrize("kind", ["behaviour", "tabular", "search"])
def test_kinds_without_a_tower_cannot_be_asked_with_a_sentence(
    world: Any, targeting: Targeting, kind: str
) -> None:
    world.publish(1, live=True)  # has no search embeddings, which makes no difference
    with pytest.raises(NoSentences, match=r"aligned with \(fused\), got"):
        targeting.target(ask(kind=kind))


def test_unknown_kinds_are_named(world: Any, targeting: Targeting) -> None:
    world.publish(1, live=True)
    with pytest.raises(MissingKind, match="behaviour, fused, tabular, got 'taste'"):
        targeting.target(ask(kind="taste"))
    with pytest.raises(MissingKind, match="got 'search'"):
        targeting.embeddings(EmbeddingsRequest(user_ids=["u1"], kind="search"))


def test_a_snapshot_without_the_fused_kind_has_nothing_for_sentences(
    world: Any, targeting: Targeting
) -> None:
    world.publish(1, kinds=("behaviour",), live=True)
    with pytest.raises(MissingKind, match="'fused'"):
        targeting.target(ask())
    assert targeting.embeddings(EmbeddingsRequest(user_ids=["u1"], kind="behaviour")).user_ids


def test_embeddings_come_in_the_order_asked_and_missing_users_are_listed(
    world: Any, targeting: Targeting
) -> None:
    manifest = world.publish(1, live=True)
    asked = EmbeddingsRequest(user_ids=["u9", "nobody", "u1", "u9"], kind="tabular")
    answer = targeting.embeddings(asked)
    assert answer.user_ids == ["u9", "u1"] and answer.meta.missing == ["nobody"]
    assert (answer.meta.snapshot, answer.meta.kind, answer.meta.dim) == (manifest.id, "tabular", 16)
    matrix = Matrix.open(manifest, "tabular", world.workspace)
    expected = matrix.vectors[[matrix.ids.index("u9"), matrix.ids.index("u1")]]
    np.testing.assert_array_equal(answer.vectors, expected)


# --- what must fit together


def test_weights_other_than_the_manifests_are_refused(world: Any, targeting: Targeting) -> None:
    directory = world.checkpoint()
    world.publish(1, live=True, checkpoint=directory)
    (directory / "model.safetensors").write_bytes(b"retrained in place")
    with pytest.raises(SpaceMismatch, match="would not belong to one space"):
        targeting.target(ask())


def test_a_tower_of_another_width_is_refused(world: Any) -> None:
    class Wide:
        def __init__(self, directory: Path) -> None: ...
        def encode(self, texts: Sequence[str]) -> np.ndarray:
            return np.zeros((len(texts), 17), np.float32)

    world.publish(1, live=True)
    features = world.live()._opener.features
    live = world.live(Opener(world.workspace, Wide, features))
    with pytest.raises(SpaceMismatch, match=r"shape \[1, 17\].*have 16 numbers"):
        live.get()


def test_a_missing_checkpoint_is_named(world: Any, targeting: Targeting) -> None:
    directory = world.checkpoint()
    world.publish(1, live=True, checkpoint=directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(CannotOpen, match="model.safetensors"):
        targeting.health()


def test_the_encoder_is_kept_while_the_weights_stay(world: Any) -> None:
    live = world.live()
    first = world.publish(1, live=True)
    one = live.get()
    same_weights = world.publish(2, live=True)
    live.refresh()
    two = live.get()
    other_weights = world.publish(3, checkpoint=world.checkpoint("two"), live=True)
    live.refresh()
    three = live.get()
    ids = [opened.manifest.id for opened in (one, two, three)]
    assert ids == [first.id, same_weights.id, other_weights.id]
    assert one.encoders["fused"] is two.encoders["fused"]
    assert two.encoders["fused"] is not three.encoders["fused"]


# --- following LIVE


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_without_a_live_snapshot_the_error_says_what_to_run(
    world: Any, targeting: Targeting
) -> None:
    with pytest.raises(NoLiveSnapshot, match=r"python -m ray_jobs\.pipeline"):
        targeting.target(ask())
    manifest = world.publish(1, live=True)
    assert targeting.health().snapshot == manifest.id
    world.workspace.live_file.unlink()
    with pytest.raises(NoLiveSnapshot):
        targeting.health()


def test_the_old_snapshot_answers_until_the_new_one_is_open(world: Any) -> None:
    go_on = threading.Event()
    opener = world.live()._opener

    def slow(manifest: Manifest, before: Opened | None) -> Opened:
        if before is not None:
            assert go_on.wait(5)
        return opener(manifest, before)

    old = world.publish(1, live=True)
    live = LiveSnapshot(world.store, slow)
    held = live.get()
    new = world.publish(2, live=True)
    assert [live.get().manifest.id for _ in range(3)] == [old.id] * 3
    go_on.set()
    assert eventually(lambda: live.get().manifest.id == new.id)
    assert held.manifest.id == old.id and held.matrices["fused"].vectors.shape == (40, 16)


def test_a_new_snapshot_that_cannot_be_opened_leaves_the_old_one_serving(
    world: Any, clock: Clock
) -> None:
    old = world.publish(1, live=True)
    live = LiveSnapshot(world.store, world.live()._opener, clock=clock)
    targeting = Targeting(live, None)
    assert targeting.health().snapshot == old.id
    new = world.publish(2, live=True)
    path = world.workspace.snapshots / new.id / "manifest.json"
    good = path.read_bytes()
    path.write_bytes(b'{"id": ')
    targeting.health()
    assert eventually(lambda: live.problem is not None)

    assert targeting.target(ask()).meta.snapshot == targeting.health().snapshot == old.id
    listed = targeting.snapshots()
    assert (listed.live, [info.id for info in listed.snapshots]) == (new.id, [old.id])
    assert len(listed.problems) == 2 and f"{old.id} still answers" in listed.problems[1]
    assert "manifest.json" in listed.problems[0]

    path.write_bytes(good)  # repaired: found without touching LIVE, after a pause
    targeting.health()
    assert targeting.health().snapshot == old.id
    clock.now += 10
    assert eventually(lambda: targeting.health().snapshot == new.id)
    assert targeting.snapshots().problems == []


def test_a_corrupt_manifest_at_the_start_is_a_clear_error(world: Any, targeting: Targeting) -> None:
    manifest = world.publish(1, live=True)
    (world.workspace.snapshots / manifest.id / "manifest.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(ManifestError, match=r"manifest\.json cannot be read .*publish again"):
            targeting.target(ask())
    assert "nothing answers" in targeting.snapshots().problems[1]


def test_a_damaged_live_file_leaves_the_old_snapshot_serving(
    world: Any, targeting: Targeting
) -> None:
    old = world.publish(1, live=True)
    targeting.health()
    world.workspace.live_file.write_text("scribble, scribble")
    targeting.health()
    assert eventually(lambda: targeting.live.problem is not None)
    assert targeting.health().snapshot == old.id
    listed = targeting.snapshots()
    assert listed.live is None and "LIVE cannot be read" in listed.problems[0]
    assert targeting.activate(old.id).previous is None  # writes it anew
    assert targeting.snapshots().problems == []


# --- changing LIVE


def test_activation_and_rollback_serve_at_once(world: Any, targeting: Targeting) -> None:
    first, second = world.publish(1, live=True), world.publish(2)
    assert targeting.health().snapshot == first.id
    changed = targeting.activate(second.id)
    assert (changed.live, changed.previous) == (second.id, first.id)
    assert targeting.target(ask()).meta.snapshot == second.id
    changed = targeting.rollback()
    assert (changed.live, changed.previous) == (first.id, second.id)
    assert targeting.target(ask()).meta.snapshot == first.id
    with pytest.raises(UnknownSnapshot, match="nothing to roll back to"):
        targeting.rollback()


def test_activating_what_cannot_be_opened_changes_nothing(world: Any, targeting: Targeting) -> None:
    first = world.publish(1, live=True)
    second = world.publish(2, checkpoint=world.checkpoint("two"))
    (world.workspace.checkpoints / "two" / "config.json").write_text("another")
    with pytest.raises(SpaceMismatch):
        targeting.activate(second.id)
    with pytest.raises(UnknownSnapshot):
        targeting.activate("../../etc")
    assert world.store.live_id() == targeting.health().snapshot == first.id


def test_requests_during_swaps_never_mix_two_snapshots(world: Any, targeting: Targeting) -> None:
    manifests = [world.publish(1, live=True)]
    manifests.append(world.publish(2, checkpoint=world.checkpoint("two"), space="ffff"))
    expected = {}
    for manifest in manifests:
        targeting.activate(manifest.id)
        expected[manifest.id] = targeting.target(ask(exact=True)).scores.tolist()
    wrong: list[str] = []
    done = threading.Event()

    def request() -> None:
        while not done.is_set():
            answer = targeting.target(ask())
            if answer.scores.tolist() != expected[answer.meta.snapshot]:
                wrong.append(answer.meta.snapshot)

    threads = [threading.Thread(target=request) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(10):
        targeting.activate(manifests[turn % 2].id)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
