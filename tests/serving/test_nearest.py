"""Milvus and the exact scan give the same answers, and each stands in for the other."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.errors import VectorsUnavailable
from feature_repo.matrix import Matrix
from feature_repo.vectors import MILVUS_LIMIT
from sdk.types import TargetRequest
from serving.nearest import RETRY_SECONDS, Nearest, Rows
from serving.targeting import Targeting


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
def clock() -> Clock:
    return Clock()


@pytest.fixture
def milvus(world: Any) -> FakeMilvus:
    return FakeMilvus(world)


@pytest.fixture
def targeting(world: Any, milvus: FakeMilvus, clock: Clock) -> Targeting:
    return Targeting(world.live(), Nearest(milvus.connect, clock=clock))


def ask(**fields: Any) -> TargetRequest:
    return TargetRequest(**{"text": "households that will buy diapers", "size": 7, **fields})


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


def test_a_crowd_at_the_last_place_is_seen_whole(world: Any) -> None:
    class Crowd:
        """Scores that differ by less than the two engines do, in the wrong order."""

        asked: list[int] = []

        def search(self, collection: str, query: Any, k: int) -> tuple[list[str], np.ndarray]:
            self.asked.append(k)
            found = np.sort(matrix.vectors[:, 0])[::-1][:k]
            return [*reversed(ids)][:k], found

    ids = [f"u{n:03}" for n in range(300)]
    scores = np.full((300, 1), 1.0, np.float32) - 1e-7 * np.arange(300, dtype=np.float32)[:, None]
    matrix = Matrix(scores, pa.array(ids))
    best, _ = Nearest(Crowd).best("any", matrix, Rows(matrix), np.ones(1, np.float32), 5)
    assert best == ids[:5]
    assert Crowd.asked[0] < 20 and Crowd.asked[-1] == 300


def test_sizes_beyond_milvus_limit_and_exact_ones_go_to_the_scan(
    world: Any, targeting: Targeting, milvus: FakeMilvus
) -> None:
    world.publish(1, live=True)
    assert targeting.target(ask(size=MILVUS_LIMIT)).meta.engine == "milvus"
    assert targeting.target(ask(size=MILVUS_LIMIT + 1)).meta.engine == "scan"
    assert targeting.target(ask(exact=True)).meta.engine == "scan"
    assert milvus.searches == 1


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

    clock.now += RETRY_SECONDS
    assert targeting.target(ask()).meta.engine == "scan"
    assert targeting.target(ask()).meta.engine == "scan"
    assert milvus.connections == 2  # one try per pause

    milvus.away = False
    assert targeting.target(ask()).meta.engine == "scan"
    clock.now += RETRY_SECONDS
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
    rows = Rows(Matrix(np.zeros((len(ids), 2), np.float32), pa.array(ids)))
    assert rows.of([*reversed(ids), "missing", "zz"]).tolist() == [6, 5, 4, 3, 2, 1, 0, -1, -1]
    empty = Rows(Matrix(np.zeros((0, 2), np.float32), pa.array([], "string")))
    assert empty.of(["a"]).tolist() == [-1]


def test_errors_that_are_not_ours_count_as_milvus_being_away(world: Any) -> None:
    class Broken(FakeMilvus):
        def search(self, collection: str, query: Any, k: int) -> tuple[list[str], np.ndarray]:
            raise RuntimeError("DEADLINE_EXCEEDED")

    world.publish(1, live=True)
    targeting = Targeting(world.live(), Nearest(Broken(world).connect))
    assert [targeting.target(ask()).meta.engine for _ in range(2)] == ["scan", "scan"]


def test_only_one_request_waits_for_a_connection_that_hangs(world: Any, clock: Clock) -> None:
    world.publish(1, live=True)
    connecting, go_on = threading.Event(), threading.Event()

    def hangs() -> Any:
        connecting.set()
        assert go_on.wait(5)
        raise VectorsUnavailable("no answer")

    targeting = Targeting(world.live(), Nearest(hangs, clock=clock))
    waiting = threading.Thread(target=targeting.target, args=(ask(),))
    waiting.start()
    assert connecting.wait(5)
    clock.now += 10 * RETRY_SECONDS
    assert targeting.target(ask()).meta.engine == "scan"  # at once, though a retry is due
    go_on.set()
    waiting.join()
