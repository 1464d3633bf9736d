"""The command line: output for people and programs, exit codes, and no tracebacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import sdk
from sdk.cli import app

ROOT = Path(sdk.__file__).parents[1]


@pytest.fixture
def run() -> Any:
    """Runs ``openfound`` with arguments and returns the result."""
    runner = CliRunner(env={"COLUMNS": "120"})

    def invoke(*args: str, stdin: str | None = None) -> Any:
        result = runner.invoke(app, list(args), input=stdin)
        assert "Traceback" not in result.output
        if result.exception is not None:
            assert isinstance(result.exception, SystemExit)
        return result

    return invoke


def test_target_shows_the_audience_and_its_best_members(service: Any, run: Any) -> None:
    result = run("target", "will buy [red]diapers[/red]", "--size", "25")
    assert result.exit_code == 0
    assert "25 of 30 users for 'will buy [red]diapers[/red]'" in result.stdout
    assert "0.9844" in result.stdout
    assert "… and 5 more" in result.stdout


def test_target_prints_the_contract_s_json(service: Any, run: Any) -> None:
    result = run("target", "diapers", "--size", "2", "--exact", "--json")
    answer = json.loads(result.stdout)
    assert answer["users"] == [
        {"user_id": "0", "score": 1.0},
        {"user_id": "1", "score": 0.984375},
    ]
    assert (answer["engine"], answer["as_of"]) == ("scan", "2017-11-06T00:00:00Z")


def test_literal_takes_the_sentence_as_it_stands(service: Any, run: Any) -> None:
    assert run("target", "diapers", "--literal").exit_code == 0
    assert run("target", "diapers").exit_code == 0
    asked = [json.loads(each["body"])["rewrite"] for each in service.requests]
    assert asked == [False, True]


def test_target_writes_a_file(service: Any, run: Any, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    result = run("target", "diapers", "--size", "30", "--out", str(out))
    assert result.exit_code == 0
    assert "wrote   30 rows to" in result.stdout
    assert pq.read_table(out).num_rows == 30
    summary = json.loads(run("target", "diapers", "--out", str(out), "--json").stdout)
    assert (summary["num_rows"], summary["out"]) == (30, str(out))


def test_embeddings_from_arguments_file_and_stdin(service: Any, run: Any, tmp_path: Path) -> None:
    ids, out = tmp_path / "ids.txt", tmp_path / "e.parquet"
    ids.write_text("4\n\n 5 \nghost\n")
    result = run("embeddings", "1", "--file", str(ids), "--out", str(out))
    assert result.exit_code == 0
    assert pq.read_table(out)["user_id"].to_pylist() == ["1", "4", "5"]
    shown = run("embeddings", "--file", "-", stdin="7\nghost\n")
    assert "+7.0000" in shown.stdout
    assert "missing: ghost" in shown.stdout
    answer = json.loads(run("embeddings", "3", "--kind", "tabular", "--json").stdout)
    assert answer["embeddings"] == [{"user_id": "3", "embedding": [3.0] * 4}]
    assert answer["kind"] == "tabular"


def test_a_prompt_is_tuned_from_files_and_used(service: Any, run: Any, tmp_path: Path) -> None:
    yes, no = tmp_path / "yes.txt", tmp_path / "no.txt"
    yes.write_text("1\n2\n3\n")
    no.write_text("4\n5\n6\n7\n")
    args = ("tune", "diapers", "--positives", str(yes), "--negatives", str(no))
    shown = run(*args)
    assert shown.exit_code == 0
    assert f"prompt {'p' * 16} (3 + 4 seed users)" in shown.stdout
    assert f"openfound target --prompt {'p' * 16}" in shown.stdout
    made = json.loads(run(*args, "--json").stdout)
    assert (made["text"], made["method"]) == ("diapers", "posterior")
    learnt = run(*args, "--method", "tokens", "--json")
    assert json.loads(learnt.stdout)["method"] == "tokens"
    assert "'guess' is not one of" in run(*args, "--method", "guess").stderr
    assert "25 of 30 users" in run("target", "--prompt", made["prompt"], "--size", "25").stdout
    missing = run(*args[:-1], "/nowhere")
    assert (missing.exit_code, "--negatives: /nowhere cannot be read" in missing.stderr) == (
        2,
        True,
    )


def test_snapshots_activate_rollback_health(service: Any, run: Any) -> None:
    listed = run("snapshots")
    assert "live" in listed.stdout
    assert "a_1" in listed.stdout
    assert json.loads(run("snapshots", "--json").stdout)["live"] == "b_2"
    assert run("activate", "a_1").stdout == "live snapshot: a_1 (before: b_2)\n"
    assert json.loads(run("rollback", "--json").stdout) == {"live": "b_2", "previous": "a_1"}
    assert run("health").stdout == "ok, live snapshot b_2\n"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["target", ""], 2, "text:"),
        (["target", "x" * 10_000], 2, "text:"),
        (["target", "x", "--size", "0"], 2, "size:"),
        (["target", "x", "--size", "-1"], 2, "size:"),
        (["target", "x", "--size", "many"], 2, "size"),
        (["target"], 2, "Missing argument"),
        (["target", "x", "--out", "a.csv"], 2, "ends in .parquet"),
        (["target", "x", "--out", "/nowhere/a.parquet"], 2, "no directory"),
        (["target", "x", "--url", "localhost:8000"], 2, "expected http://HOST:PORT"),
        (["target", "x", "--url", "http://127.0.0.1:9"], 1, "Nobody answers"),
        (["target", "x", "--timeout", "0"], 2, "timeout:"),
        (["target", "x", "--api-key", "k"], 2, "No such option"),
        (["target", "--prompt", ""], 2, "prompt:"),
        (["tune", "x"], 2, "Missing option"),
        (["embeddings"], 2, "No user ids"),
        (["embeddings", "--file", "/nowhere"], 2, "cannot be read"),
        (["activate", "ghost"], 2, "there is no"),
        (["activate", "../x"], 2, "expected an id"),
        (["submit", "dance"], 2, "unknown job"),
        (["submit", "--preset", "best", "pipeline"], 2, "No such option"),
        (["submit", "train", "--address", "http://x"], 2, "Put it first"),
        (["submit", "--address", "auto", "train"], 2, "expected the dashboard's"),
    ],
)
def test_mistakes_are_one_line_a_remedy_and_an_exit_code(
    service: Any, run: Any, args: list[str], code: int, said: str
) -> None:
    result = run(*args)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""
    if result.stderr.startswith("error:"):
        first, second = result.stderr.splitlines()
        assert second.startswith("  try: ")
        assert len(first) < 200


def test_a_wrong_key_is_told_apart_from_wrong_input(
    service: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFOUND_API_KEY", "wrong")
    result = run("snapshots")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: no or wrong key.\n  try: Set OPENFOUND_API_KEY to a key that the service knows.\n"
    )


def test_submit_passes_everything_after_the_verb_on_as_it_is(ray: Any, run: Any) -> None:
    args = ["--preset", "best", "--as-of", "2017-11-06", "--json", "--help", "--", "-x", "a b"]
    result = run("submit", "pipeline", *args)
    assert result.exit_code == 0
    assert result.stdout == "loading\ntraining 50%\ndone ✓\n"
    sent = json.loads(ray.requests[0]["body"])["entrypoint"]
    assert sent == (
        "python -m ray_jobs.pipeline --preset best --as-of 2017-11-06 --json --help -- -x 'a b'"
    )
    for status in ("PENDING", "RUNNING", "SUCCEEDED", "took 3 s"):
        assert status in result.stderr


def test_submit_ends_with_the_job_s_status(ray: Any, run: Any) -> None:
    ray.end = "FAILED"
    result = run("submit", "--submission-id", "nightly", "train", "--stage", "tabular")
    assert result.exit_code == 1
    assert "done ✓" in result.stdout
    assert "error: Job nightly failed." in result.stderr


def test_submit_as_json_keeps_the_log_off_standard_output(ray: Any, run: Any) -> None:
    result = run("submit", "--json", "train")
    assert json.loads(result.stdout)["status"] == "SUCCEEDED"
    assert "training 50%" in result.stderr


def test_a_job_is_left_found_again_and_stopped(ray: Any, run: Any) -> None:
    left = run("submit", "--no-follow", "--submission-id", "nightly", "train")
    assert left.stdout == "nightly  PENDING  python -m ray_jobs.train\n"
    assert json.loads(run("job", "status", "nightly", "--json").stdout)["status"] == "PENDING"
    assert run("job", "follow", "nightly").exit_code == 0
    assert run("job", "stop", "nightly").stdout == "nightly is being stopped\n"
    unknown = run("job", "status", "ghost")
    assert (unknown.exit_code, unknown.stdout) == (2, "")


def test_ctrl_c_says_that_the_job_goes_on_and_how_to_stop_it(ray: Any) -> None:
    ray.chapters = ["loading\n"] * 10_000
    command = [sys.executable, "-m", "sdk.cli", "submit", "--submission-id", "nightly", "train"]
    # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert child.stdout is not None
    assert child.stdout.readline() == "loading\n"
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "The job goes on." in err
    assert "`openfound job stop nightly`" in err
    assert "Traceback" not in err
    assert not any(one["path"].endswith("/stop") for one in ray.requests)


@pytest.mark.parametrize(
    "args",
    [[], ["target"], ["embeddings"], ["snapshots"], ["activate"], ["rollback"], ["submit"],
     ["tune"], ["health"], ["job", "follow"], ["job", "status"], ["job", "stop"]],
)  # fmt: skip
def test_every_help_has_an_example(run: Any, args: list[str]) -> None:
    result = run(*args, "--help")
    assert result.exit_code == 0
    assert "Example: openfound" in result.stdout


def test_the_version_is_told(run: Any) -> None:
    assert run("--version").stdout.startswith("openfound ")
