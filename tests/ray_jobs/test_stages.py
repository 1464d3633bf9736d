"""Finished stages are reused; whatever they depend on makes them run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feature_repo.settings import Workspace
from ray_jobs import stages


class Counted:
    """A stage's work that counts its runs and leaves one file each time."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.keys = workspace, list[str]()

    def __call__(self, key: str) -> dict[str, Any]:
        self.keys.append(key)
        path = self.workspace.root / "made" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("result")
        return {"outputs": [f"made/{key}"], "number": len(self.keys)}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def work(workspace: Workspace) -> Counted:
    return Counted(workspace)


def test_a_finished_stage_is_reused(
    workspace: Workspace, work: Counted, capsys: pytest.CaptureFixture[str]
) -> None:
    first = stages.run_stage(workspace, "cook", {"salt": 1}, work)
    again = stages.run_stage(workspace, "cook", {"salt": 1}, work)
    assert (first, len(work.keys)) == (again, 1)
    assert first["number"] == 1 and first["key"] == work.keys[0] and first["seconds"] >= 0
    assert f"cook: reused ({first['key']})" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "inputs"), [("fry", {"salt": 1}), ("cook", {"salt": 2}), ("cook", ["salt", 1])]
)
def test_another_name_or_input_is_another_stage(
    workspace: Workspace, work: Counted, name: str, inputs: Any
) -> None:
    stages.run_stage(workspace, "cook", {"salt": 1}, work)
    stages.run_stage(workspace, name, inputs, work)
    assert len(set(work.keys)) == 2


def test_a_changed_program_runs_again(
    workspace: Workspace, work: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("one", "two", "one"):
        monkeypatch.setattr(stages, "code_version", lambda version=version: version)
        stages.run_stage(workspace, "cook", {}, work)
    assert len(work.keys) == len(set(work.keys)) == 2  # back to the first: its result is there


def test_the_code_version_follows_every_source_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("feature_repo", "encoders", "ray_jobs"):
        shutil.copytree(stages._ROOT / package, tmp_path / package)
    uncached: Callable[[], str] = stages.code_version.__wrapped__
    real = uncached()
    monkeypatch.setattr(stages, "_ROOT", tmp_path)
    assert uncached() == real
    versions = {real}
    for number, path in enumerate(
        ["feature_repo/sources/files.py", "encoders/layers.py", "ray_jobs/train.py"], start=2
    ):
        (tmp_path / path).write_text((tmp_path / path).read_text() + "\n")
        versions.add(uncached())
        assert len(versions) == number, path


def test_a_missing_output_is_made_again(workspace: Workspace, work: Counted) -> None:
    record = stages.run_stage(workspace, "cook", {}, work)
    (workspace.root / record["outputs"][0]).unlink()
    again = stages.run_stage(workspace, "cook", {}, work)
    assert again["number"] == 2 and (workspace.root / again["outputs"][0]).exists()


@pytest.mark.parametrize("content", ["", '{"outputs": [', "\x00"])
def test_a_damaged_record_does_not_count(workspace: Workspace, work: Counted, content: str) -> None:
    record = stages.run_stage(workspace, "cook", {}, work)
    (workspace.root / "stages" / f"cook-{record['key']}.json").write_text(content)
    assert stages.run_stage(workspace, "cook", {}, work)["number"] == 2


def test_a_stage_that_fails_leaves_no_record(workspace: Workspace, work: Counted) -> None:
    def breaks(key: str) -> dict[str, Any]:
        work(key)
        raise RuntimeError("the stove went out")

    with pytest.raises(RuntimeError, match="stove"):
        stages.run_stage(workspace, "cook", {}, breaks)
    assert stages.run_stage(workspace, "cook", {}, work)["number"] == 2


def test_the_record_is_json_that_says_where_the_result_is(
    workspace: Workspace, work: Counted
) -> None:
    record = stages.run_stage(workspace, "cook", {}, work)
    (path,) = (workspace.root / "stages").iterdir()
    assert json.loads(path.read_text()) == record
    assert stages.finished(workspace, path) == record
    assert stages.finished(workspace, path.with_name("never.json")) is None
