import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import (
    InputError,
    ManifestError,
    MissingKind,
    NoLiveSnapshot,
    TimeError,
    UnknownSnapshot,
)
from feature_repo.settings import Workspace
from feature_repo.snapshots import Manifest, SnapshotStore, check_space_dates, part_name

Publish = Callable[..., Manifest]


@pytest.fixture
def store(workspace: Workspace) -> SnapshotStore:
    return SnapshotStore(workspace)


def kill_at(workspace: Workspace, call: str, code: str) -> None:
    """Run ``code`` in a process that is killed, as by -9, when it first reaches ``call``."""
    program = f"""
        import os, signal
        from feature_repo.settings import Workspace
        from feature_repo.snapshots import Manifest, SnapshotStore
        os.{call} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        store = SnapshotStore(Workspace({str(workspace.root)!r}))
        {code}
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert ended.returncode == -9, "the process should have been killed on the way"


def test_a_committed_snapshot_reads_back(
    store: SnapshotStore, workspace: Workspace, tiny: ModuleType
) -> None:
    manifest = tiny.stage_snapshot(workspace, 3, seed=1)
    assert store.list() == [], "what is staged is not visible"
    store.commit(manifest)
    assert store.load(manifest.id) == manifest and store.list() == [manifest]
    assert not (workspace.staging / manifest.id).exists()
    written = json.loads((workspace.snapshots / manifest.id / "manifest.json").read_text())
    assert written["kinds"]["fused"]["count"] == tiny.NUM_USERS
    assert (workspace.root / written["kinds"]["fused"]["matrix"]).is_file()
    with pytest.raises(InputError, match="exists and is immutable"):
        store.commit(manifest)


def test_commit_refuses_what_the_manifest_does_not_find(
    store: SnapshotStore, workspace: Workspace, tiny: ModuleType
) -> None:
    manifest = tiny.stage_snapshot(workspace, 3, seed=1)
    staged = workspace.staging / manifest.id
    fused = manifest.kinds["fused"]

    with pytest.raises(ManifestError, match=r"entry 'fused' .* expected shape \(60, 9\)"):
        other = {**manifest.kinds, "fused": fused.model_copy(update={"dim": 9})}
        store.commit(manifest.model_copy(update={"kinds": other}))
    with pytest.raises(ManifestError, match="expected paths below snapshots/"):
        other = {"fused": fused.model_copy(update={"matrix": "snapshots/else/fused.npy"})}
        store.commit(manifest.model_copy(update={"kinds": other}))
    (staged / "matrix/search.npy").unlink()
    with pytest.raises(ManifestError, match=r"names '.*matrix/search.npy', but .* is not there"):
        store.commit(manifest)
    pq.write_table(pa.table({"user_id": ["1"]}), staged / "users.parquet")
    with pytest.raises(ManifestError, match="has 1 rows, the manifest says 60"):
        store.commit(manifest)
    assert store.list() == []


def test_killed_before_the_commit_nothing_shows_and_a_new_run_completes(
    store: SnapshotStore, workspace: Workspace, tiny: ModuleType
) -> None:
    manifest = tiny.stage_snapshot(workspace, 3, seed=1)
    text = manifest.model_dump_json()
    kill_at(workspace, "rename", f"store.commit(Manifest.model_validate_json({text!r}))")
    assert (workspace.staging / manifest.id / "manifest.json").exists(), "killed at the last step"
    assert store.list() == [] and store.live_id() is None
    with pytest.raises(UnknownSnapshot):
        store.activate(manifest.id)

    again = tiny.stage_snapshot(workspace, 3, seed=1)
    assert again.id == manifest.id
    assert not (workspace.staging / manifest.id / "manifest.json").exists(), "wiped, not reused"
    store.commit(again)
    store.activate(again.id)
    assert store.live() == again


def test_killed_while_replacing_live_the_old_one_stays(
    store: SnapshotStore, workspace: Workspace, publish: Publish
) -> None:
    old, new = publish(2, seed=1), publish(3, seed=2)
    store.activate(old.id)
    kill_at(workspace, "replace", f"store.activate({new.id!r})")
    assert store.live_id() == old.id
    store.activate(new.id)
    assert store.history() == [new.id, old.id]


def test_activate_and_roll_back(store: SnapshotStore, publish: Publish) -> None:
    with pytest.raises(NoLiveSnapshot, match="python -m ray_jobs.pipeline"):
        store.live()
    with pytest.raises(NoLiveSnapshot):
        store.rollback()
    a, b, c = (publish(week, seed=week).id for week in (1, 2, 3))
    assert [m.id for m in store.list()] == [c, b, a], "newest first"
    for snapshot_id in (a, b, b, c):
        store.activate(snapshot_id)
    assert store.live_id() == c and store.history() == [c, b, a]
    assert store.rollback() == b and store.live().id == b
    assert store.rollback() == a and store.history() == [a]
    with pytest.raises(UnknownSnapshot, match=f"no snapshot was live before {a}"):
        store.rollback()
    assert store.live_id() == a
    store.activate(c)
    assert store.history() == [c, a]


@pytest.mark.parametrize("name", ["nope", "../snapshots", "", "a/b"])
def test_an_unknown_snapshot_is_named_with_the_known(
    store: SnapshotStore, publish: Publish, name: str
) -> None:
    known = publish(1, seed=1).id
    for act in (store.load, store.activate):
        with pytest.raises(UnknownSnapshot, match=rf"expected one of \['{known}'\], got '{name}'"):
            act(name)
    assert store.live_id() is None
    with pytest.raises(InputError, match="only a-z, 0-9 and _"):
        store.stage("../x")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"{}", "id: Field required"),
        (None, "No such file"),
    ],
)
def test_a_damaged_manifest_is_named_and_hides_no_other(
    store: SnapshotStore,
    workspace: Workspace,
    publish: Publish,
    content: bytes | None,
    problem: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, bad = publish(1, seed=1), publish(2, seed=2)
    path = workspace.snapshots / bad.id / "manifest.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ManifestError) as error:
        store.load(bad.id)
    for part in (str(path), problem, "restore the file, or delete that directory"):
        assert part in str(error.value)
    assert store.list() == [good]
    assert bad.id in caplog.text and list(store.damaged()) == [bad.id]
    with pytest.raises(ManifestError):
        store.activate(bad.id)


def test_a_manifest_under_a_foreign_name_is_damaged(
    store: SnapshotStore, workspace: Workspace, publish: Publish
) -> None:
    manifest = publish(1, seed=1)
    os.rename(workspace.snapshots / manifest.id, workspace.snapshots / "renamed")
    with pytest.raises(ManifestError, match=f"calls itself '{manifest.id}'"):
        store.load("renamed")


@pytest.mark.parametrize("content", [b"", b"{", b'{"snapshot": 3}', b"20170911_x_1\n"])
def test_a_damaged_live_is_named_and_healed_by_activating(
    store: SnapshotStore, workspace: Workspace, publish: Publish, content: bytes
) -> None:
    manifest = publish(1, seed=1)
    store.activate(manifest.id)
    workspace.live_file.write_bytes(content)
    for act in (store.live, store.live_id, store.history, store.rollback):
        with pytest.raises(ManifestError, match=f"LIVE cannot be read .*{manifest.id}"):
            act()
    store.activate(manifest.id)
    assert store.live() == manifest


def test_paths_in_a_manifest_stay_inside(publish: Publish) -> None:
    manifest = publish(1, seed=1).model_dump()
    for path in ("/etc/passwd", "../secret"):
        with pytest.raises(ValueError, match="relative to the workspace"):
            Manifest.model_validate({**manifest, "users": path})


def test_a_kind_that_is_absent_is_named(publish: Publish) -> None:
    manifest = publish(1, seed=1, kinds=("fused", "tabular"))
    with pytest.raises(MissingKind, match="has fused, tabular, got 'search'"):
        manifest.entry("search")


def test_ids_are_valid_names_and_never_come_again(
    store: SnapshotStore, workspace: Workspace, publish: Publish, tiny: ModuleType
) -> None:
    first = publish(1, seed=1)
    assert first.id == "20170508_a1b2c3d4_1"
    assert store.new_id("A1-B2:c3d4e5", tiny.WEEKS[1]) == "20170508_a1b2c3d4_2"
    publish(1, seed=2)
    (workspace.snapshots / first.id / "manifest.json").unlink()
    assert store.new_id("a1b2c3d4e5", tiny.WEEKS[1]) == "20170508_a1b2c3d4_3"


def test_earlier_parts_of_the_space_are_linked_not_copied(
    store: SnapshotStore, workspace: Workspace, publish: Publish, tiny: ModuleType
) -> None:
    first, second = publish(2, seed=1), publish(3, seed=2)
    parts = second.kinds["fused"].parts
    assert [Path(part).name for part in parts] == [part_name(tiny.WEEKS[w]) for w in (2, 3)]
    old, new = (workspace.root / m.kinds["fused"].parts[0] for m in (first, second))
    assert old != new and os.path.samefile(old, new)

    other = publish(4, seed=3, space="ffff")
    assert len(other.kinds["fused"].parts) == 1, "another space's embeddings never come along"
    early = publish(1, seed=4)
    assert len(early.kinds["fused"].parts) == 1, "nor do later dates"


def test_what_was_rolled_back_does_not_return_through_history(
    store: SnapshotStore, publish: Publish, tiny: ModuleType
) -> None:
    good, bad = publish(2, seed=1), publish(3, seed=2)
    store.activate(good.id)
    store.activate(bad.id)
    store.rollback()
    fixed = publish(4, seed=3)
    names = [Path(part).name for part in fixed.kinds["fused"].parts]
    assert names == [part_name(tiny.WEEKS[w]) for w in (2, 4)]


def test_a_space_is_not_written_before_its_weights_were_trained(tiny: ModuleType) -> None:
    trained = tiny.WEEKS[3]
    check_space_dates(trained, [trained, tiny.WEEKS[4]])
    with pytest.raises(TimeError, match="trained_as_of 2017-05-22 on, got 2017-05-08 and 1 more"):
        check_space_dates(trained, [tiny.WEEKS[5], tiny.WEEKS[2], tiny.WEEKS[1]])
    with pytest.raises(TimeError, match="train as of 2017-05-21 or earlier"):
        check_space_dates(trained, [trained - timedelta(seconds=1)])


def test_prune_spares_the_live_and_the_previous_one(
    store: SnapshotStore, workspace: Workspace, publish: Publish
) -> None:
    a, b, c, d, e = (publish(week, seed=week) for week in range(1, 6))
    store.activate(b.id)
    store.activate(a.id)
    dropped = store.prune(1)
    assert sorted(dropped) == sorted(k.collection for m in (c, d) for k in m.kinds.values())
    assert {m.id for m in store.list()} == {a.id, b.id, e.id}
    assert store.prune(1) == []
    assert not list(workspace.staging.glob(".dropped*"))
    kept = [workspace.root / part for part in e.kinds["fused"].parts]
    assert len(kept) == 5 and all(part.exists() for part in kept), "links outlive the originals"
    assert store.rollback() == b.id
    with pytest.raises(InputError, match="keep: expected at least 1, got 0"):
        store.prune(0)
