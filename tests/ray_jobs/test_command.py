"""Every job as a command line: its help, its refusals, and what must not steer it."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from encoders.checkpoint import CheckpointError
from feature_repo.errors import InputError, NoLiveSnapshot
from ray_jobs.build_features import BuildFeatures
from ray_jobs.command import Job, main, parse_date
from ray_jobs.embed import Embed
from ray_jobs.export import Export
from ray_jobs.pipeline import Pipeline
from ray_jobs.train import Train

VERBS = ("build_features", "embed", "evaluate", "export", "pipeline", "publish", "train")
COMPLETE = {
    "build_features": ["--as-of", "2024-06-17"],
    "embed": ["--as-of", "2024-06-17"],
    "evaluate": ["--out", "report"],
    "export": ["--out", "e.parquet"],
    "pipeline": ["--as-of", "2024-06-17"],
    "publish": [],
    "train": ["--as-of", "2024-06-17", "--stage", "tabular"],
}

Call = Callable[..., int]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """``call(verb, …)`` is ``python -m ray_jobs.<verb> …`` in this process; returns the code."""
    monkeypatch.chdir(tmp_path)

    def call(verb: str, *arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", [verb, *arguments])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # runpy: the module is imported already
            try:
                runpy.run_module(f"ray_jobs.{verb}", run_name="__main__", alter_sys=True)
            except SystemExit as ended:
                return int(ended.code or 0)
        return 0

    return call


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_the_options(verb: str, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(verb, "--help") == 0
    out = capsys.readouterr().out
    assert "--workspace" in out and "$OPENFOUND_WORKSPACE" in out
    for option in COMPLETE[verb][::2]:
        assert option in out


def test_help_tells_presets_stages_and_formats(
    call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train", "--help")
    out = capsys.readouterr().out
    for text in ("best", "behaviour,tabular,search,alignment", "--from", "--use-gpu",
                 "float32,bfloat16"):  # fmt: skip
        assert text in out, text
    call("embed", "--help")
    assert "2017-08-14:2017-11-06:7d" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_is_refused_by_name(
    verb: str, call: Call, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call(verb, *COMPLETE[verb], "--colour", "red") == 2
    assert "--colour" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())  # nothing was begun


@pytest.mark.parametrize(
    ("verb", "arguments", "name", "hint"),
    [
        ("pipeline", ["--as-of", "11/06/2017"], "as-of", "a date like 2017-11-06"),
        ("pipeline", ["--as-of", "2017-02-30"], "as-of", "a date like 2017-11-06"),
        ("build_features", [], "as-of", "required"),
        ("build_features", ["--as-of", "2024-06-17", "--source", "nowhere"], "source", "synthetic"),
        ("pipeline", ["--as-of", "2024-06-17", "--preset", "huge"], "preset", "best"),
        ("pipeline", ["--as-of", "2024-06-17", "--preset", "[/red]"], "preset", "[/red]"),
        ("train", [*COMPLETE["train"], "--workers", "-1"], "workers", ""),
        ("train", [*COMPLETE["train"], "--workers", "two"], "workers", "valid integer"),
        ("train", [*COMPLETE["train"], "--precision", "float8"], "precision", "bfloat16"),
        ("train", ["--as-of", "2024-06-17", "--stage", "speech"], "stage", "tabular"),
        ("train", COMPLETE["train"], "build_features", "no data yet"),
        ("publish", ["--keep", "0"], "keep", "greater than or equal to 1"),
        ("publish", [], "snapshot", "ray_jobs.embed"),
        ("embed", [], "checkpoint", "ray_jobs.train"),
        ("evaluate", ["--out", "r", "--suite", "luck"], "suite", "found"),
        ("evaluate", ["--out", "r", "--only", "probes,luck"], "only", "zero-shot"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_that_names_the_argument(
    verb: str,
    arguments: list[str],
    name: str,
    hint: str,
    call: Call,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(verb, *arguments) == 2
    err = capsys.readouterr().err
    assert name in err and hint in err and "Traceback" not in err, err
    line = err.strip().splitlines()[-1]
    assert "error" in line and name in line


@pytest.mark.parametrize("workers", ["-1", "two"])
def test_a_wrong_number_of_workers_is_noticed_before_the_work(
    workers: str, call: Call, tmp_path: Path
) -> None:
    """Not after the minutes that ingesting takes."""
    where = str(tmp_path / "workspace")
    code = call("pipeline", "--as-of", "2024-06-17", "--workspace", where, "--workers", workers,
                "--source", "synthetic:users=10,weeks=30", "--preset", "tiny")  # fmt: skip
    assert code == 2 and not (tmp_path / "workspace").exists()


def test_a_missing_snapshot_is_exit_code_1(
    call: Call, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call("export", "--out", "e.parquet", "--workspace", str(tmp_path / "w")) == 1
    err = capsys.readouterr().err
    assert "no snapshot is live" in err and "ray_jobs.pipeline" in err and "Traceback" not in err


# --- values come from the command line and from code, nowhere else


def test_the_environment_does_not_steer_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    strangers = {"SEED": "7", "SOURCE": "nowhere", "PRESET": "huge", "WORKERS": "3", "TRAIN": "0",
                 "AS_OF": "1999-01-01", "WORKSPACE": "/elsewhere", "KEEP": "1"}  # fmt: skip
    for name, value in strangers.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    got: list[Pipeline] = []
    monkeypatch.setattr(sys, "argv", ["pipeline", "--as-of", "2024-06-17"])
    main(Pipeline, got.append)
    (settings,) = got
    assert (settings.seed, settings.source, settings.preset) == (0, "complete-journey", "best")
    assert (settings.workers, settings.train, settings.keep) == (0, True, 5)
    assert settings.workspace == "./workspace"
    assert settings.as_of == datetime(2024, 6, 17, tzinfo=UTC)


def test_the_workspace_comes_from_its_own_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENFOUND_WORKSPACE", str(tmp_path / "there"))
    assert Export(out="e.parquet").place.root == tmp_path / "there"
    assert Export(out="e.parquet", workspace=str(tmp_path)).place.root == tmp_path


def test_switches_have_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []
    arguments = ["--as-of", "2024-06-17", "--no-demographics", "--no-aggregates", "--no-train",
                 "--use-gpu", "--workers", "2", "--precision", "bfloat16"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
    main(Pipeline, got.append)
    (settings,) = got
    assert (settings.demographics, settings.aggregates, settings.train) == (False, False, False)
    assert (settings.use_gpu, settings.workers, settings.precision) == (True, 2, "bfloat16")


def test_code_and_command_line_make_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Any] = []
    monkeypatch.setattr(
        sys, "argv", ["train", "--stage", "tabular", "--as-of", "2024-06-17", "--from", "x",
                      "--from", "y"],
    )  # fmt: skip
    main(Train, got.append)
    assert got == [Train(stage="tabular", as_of="2024-06-17", from_=["x", "y"])]
    assert got == [Train(stage="tabular", as_of="2024-06-17", **{"from": ["x", "y"]})]


def test_dates_are_midnight_utc() -> None:
    midnight = datetime(2017, 11, 6, tzinfo=UTC)
    for value in ("2017-11-06", "2017-11-06T00:00", midnight, midnight.replace(tzinfo=None)):
        assert parse_date(value) == midnight
    assert parse_date("2017-11-06T02:00+02:00") == midnight
    with pytest.raises(ValueError, match="expected a date like 2017-11-06, got 'soon'"):
        parse_date("soon")
    assert BuildFeatures(as_of="2017-11-06").as_of == Embed(as_of="2017-11-06").as_of == midnight


# --- which errors become one line


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("size: too [bold]big"), 2), (NoLiveSnapshot("none of [x]"), 1),
     (CheckpointError("no checkpoint in /a[b]/c"), 1)],
)  # fmt: skip
def test_our_own_errors_are_shown_word_for_word(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(settings: Job) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["job"])
    with pytest.raises(SystemExit) as ended:
        main(Job, fails)
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == f"error: {error}"


@pytest.mark.parametrize("error", [RuntimeError("ours no"), KeyError("a bug"), TypeError("a bug")])
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(settings: Job) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["job"])
    with pytest.raises(type(error)):
        main(Job, fails)


_IMPORT = """
import importlib, os, sys
before = dict(os.environ)
for verb in sys.argv[1:]:
    importlib.import_module(f"ray_jobs.{verb}")
import ray
assert not ray.is_initialized()
assert os.listdir(".") == []
print({name for name in os.environ if name.startswith("OPENFOUND")} - set(before))
"""


def test_importing_the_jobs_makes_nothing(tmp_path: Path) -> None:
    """No directory and no cluster, only names."""
    root = str(Path(sys.modules["ray_jobs"].__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, *VERBS], cwd=tmp_path, capture_output=True, text=True,
        timeout=200, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr[-2000:]
