"""The tabular stage before alignment: the snapshot's own, or none that could be taken for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from encoders import checkpoint
from feature_repo.manifest import CheckpointEntry
from feature_repo.snapshots import SnapshotStore
from ray_jobs.evaluation import pretrained, probe_table
from ray_jobs.evaluation.subject import Subject

OTHERS = ("tabular-000000000000", "tabular-zzzzzzzzzzzz")  # before and after any real one


@pytest.fixture
def subject(copy: Any) -> Subject:
    """The trained snapshot; two more seeds of the tabular stage have run in its workspace."""
    own = copy.checkpoint("tabular")
    for name in OTHERS:
        other = own.with_name(name)
        shutil.copytree(own, other)
        info = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**info, "seed": 7}))
        write(copy, name, {"checkpoint": f"checkpoints/{name}"})
    (manifest,) = SnapshotStore(copy.workspace).list()
    return Subject(copy.workspace, manifest, copy.dataset)


def record(copy: Any, name: str) -> Path:
    return copy.workspace.root / "stages" / f"train-{name}.json"


def write(copy: Any, name: str, content: dict[str, Any]) -> None:
    record(copy, name).write_text(json.dumps(content))


def own_tabular(copy: Any) -> Path:
    (found,) = (p for p in copy.workspace.checkpoints.glob("tabular-*") if p.name not in OTHERS)
    return found


def forget_origins(copy: Any) -> None:
    """The alignment's record as older versions wrote it."""
    name = copy.checkpoint("alignment").name
    kept = json.loads(record(copy, name).read_text())
    del kept["started_from"]
    write(copy, name, kept)


def test_it_is_the_one_that_the_snapshot_started_from(copy: Any, subject: Subject) -> None:
    own = own_tabular(copy)
    assert pretrained.checkpoints(subject) == {pretrained.NAME: own}
    row = probe_table.rows(subject, None)[pretrained.NAME]
    assert row.depends == checkpoint.fingerprint(own), "trained again, it is measured again"
    vectors = row.vectors()
    assert vectors.shape == (len(subject.users), 16) and vectors.std(0).min() > 0


def test_trained_again_or_gone_it_is_no_row(copy: Any, subject: Subject) -> None:
    own = own_tabular(copy)
    shutil.copy(own.with_name(OTHERS[0]) / "config.json", own / "config.json")
    assert pretrained.checkpoints(subject) == {}
    shutil.rmtree(own)
    assert pretrained.checkpoints(subject) == {}


def test_alignment_from_nothing_has_none(copy: Any, subject: Subject) -> None:
    name = copy.checkpoint("alignment").name
    kept = json.loads(record(copy, name).read_text())
    write(copy, name, {**kept, "started_from": {}})
    assert pretrained.checkpoints(subject) == {}


def test_a_warm_start_is_followed_back(copy: Any, subject: Subject) -> None:
    first = subject.manifest.checkpoints["alignment"]
    warm = {"checkpoint": "checkpoints/alignment-warm",
            "started_from": {"alignment": first.model_dump()}}  # fmt: skip
    write(copy, "alignment-warm", warm)
    entry = CheckpointEntry(path=warm["checkpoint"], sha256="")
    manifest: Any = SimpleNamespace(checkpoints={"alignment": entry})
    later = Subject(copy.workspace, manifest, copy.dataset)
    assert pretrained.checkpoints(later) == {pretrained.NAME: own_tabular(copy)}


def test_where_no_record_tells_none_stands_for_another(copy: Any, subject: Subject) -> None:
    forget_origins(copy)
    own = own_tabular(copy)
    named = [f"{pretrained.NAME}, {name}" for name in sorted([*OTHERS, own.name])]
    assert list(pretrained.checkpoints(subject)) == named
    rows = probe_table.rows(subject, None)
    assert len({rows[name].depends for name in named}) == 2, "the two others hold the same"
    for name in OTHERS:
        record(copy, name).unlink()
    assert pretrained.checkpoints(subject) == {pretrained.NAME: own}


def test_weights_of_another_date_are_no_row(copy: Any, subject: Subject) -> None:
    forget_origins(copy)
    for name in OTHERS:
        path = own_tabular(copy).with_name(name) / "config.json"
        info = json.loads(path.read_text())
        path.write_text(json.dumps({**info, "trained_as_of": "2024-05-20T00:00:00+00:00"}))
    assert pretrained.checkpoints(subject) == {pretrained.NAME: own_tabular(copy)}
