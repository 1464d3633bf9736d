"""Which snapshot answers, what must fit together in it, and how it changes under requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feature_repo.errors import ManifestError, NoLiveSnapshot, SpaceMismatch, UnknownSnapshot
from feature_repo.manifest import Manifest
from sdk.types import TargetRequest
from serving.live import CannotOpen, LiveSnapshot, Opened, Opener
from serving.targeting import Targeting


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def targeting(world: Any) -> Targeting:
    return Targeting(world.live(), None)


def ask(**fields: Any) -> TargetRequest:
    return TargetRequest(**{"text": "households that will buy diapers", "size": 7, **fields})


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
