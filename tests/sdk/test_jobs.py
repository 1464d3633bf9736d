"""Ray Jobs over REST, against a fake dashboard with Ray's own answers."""

from __future__ import annotations

import json
import shlex
import socket
from typing import Any

import httpx
import pytest

from sdk.errors import (
    AuthenticationError,
    ConnectionFailed,
    JobFailed,
    NotFound,
    PermissionDenied,
    ServerError,
    Timeout,
    UnexpectedAnswer,
    UsageError,
)
from sdk.jobs import PATIENCE, SLOWEST_POLL, VERBS, RayJobs, entrypoint


def quick(**options: Any) -> RayJobs:
    return RayJobs(sleep=lambda seconds: None, **options)


def test_the_entrypoint_quotes_every_argument() -> None:
    nasty = ["--source", "files:my data.yaml", "$(rm -rf /)", "a;b", "", "'", "--seed=3"]
    command = entrypoint("pipeline", nasty)
    assert shlex.split(command) == ["python", "-m", "ray_jobs.pipeline", *nasty]
    assert command.startswith("python -m ray_jobs.pipeline --source 'files:my data.yaml'")


def test_the_verbs_are_the_contract_s() -> None:
    contract = "pipeline build_features train embed publish evaluate export tune_rewriter"
    assert sorted(contract.split()) == list(VERBS)


@pytest.mark.parametrize("verb", ["pipelines", "", "os; rm -rf /", "pipeline.x", "../pipeline"])
def test_other_verbs_are_refused(verb: str) -> None:
    with pytest.raises(UsageError, match=r"unknown job .*Jobs: build_features"):
        entrypoint(verb)


def test_a_job_is_submitted_and_its_log_followed_once_through(ray: Any) -> None:
    log: list[str] = []
    statuses: list[str] = []
    with quick() as jobs:
        job = jobs.submit("pipeline", ["--preset", "best", "--as-of", "2017-11-06"])
        info = jobs.follow(job, log.append, on_status=statuses.append)
    assert "".join(log) == "loading\ntraining 50%\ndone ✓\n"
    assert log[:2] == ["loading\n", "train"]
    assert statuses == ["PENDING", "RUNNING", "SUCCEEDED"]
    assert (info.status, info.ended, info.seconds) == ("SUCCEEDED", True, 3.0)
    sent = json.loads(ray.requests[0]["body"])
    assert sent["entrypoint"] == ("python -m ray_jobs.pipeline --preset best --as-of 2017-11-06")
    assert job.startswith("pipeline-")
    assert "runtime_env" not in sent


def test_a_failed_job_raises_after_its_last_words(ray: Any) -> None:
    ray.end = "FAILED"
    log: list[str] = []
    with quick() as jobs, pytest.raises(JobFailed) as caught:
        job = jobs.submit("train", ["--stage", "tabular"])
        jobs.follow(job, log.append)
    assert "".join(log).endswith("done ✓\n")
    assert (caught.value.status, caught.value.submission_id) == ("FAILED", job)
    assert "failed" in str(caught.value)


def test_a_job_that_never_ran_fails_with_ray_s_reason() -> None:
    info = {"submission_id": "x", "status": "FAILED", "message": "Failed to start: no CPUs."}

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"logs": ""} | info)

    with pytest.raises(JobFailed, match="^Job x failed: Failed to start: no CPUs\\. Its log"):
        quick(transport=httpx.MockTransport(handler)).follow("x", print)


def test_a_job_can_be_stopped(ray: Any) -> None:
    with quick() as jobs:
        job = jobs.submit("train")
        assert jobs.stop(job) is True
        with pytest.raises(JobFailed, match="was stopped"):
            jobs.follow(job, lambda part: None)


def test_the_same_job_under_one_id_starts_once(ray: Any) -> None:
    with quick() as jobs:
        first = jobs.submit("train", ["--seed", "1"], submission_id="retrain-2017-11-06")
        again = jobs.submit("train", ["--seed", "1"], submission_id="retrain-2017-11-06")
        assert first == again == "retrain-2017-11-06"
        assert list(ray.jobs) == [first]
        with pytest.raises(UsageError, match="taken by another job"):
            jobs.submit("train", ["--seed", "2"], submission_id="retrain-2017-11-06")


@pytest.mark.parametrize("job", ["a/b", "../x", "", "a b", "x" * 200, "-x", "a?b"])
def test_an_id_cannot_change_the_path(ray: Any, job: str) -> None:
    with quick() as jobs:
        for call in (jobs.info, jobs.logs, jobs.stop):
            with pytest.raises(UsageError, match="submission_id: expected"):
                call(job)
    assert ray.requests == []


def test_an_unknown_job_is_not_found(ray: Any) -> None:
    with quick() as jobs, pytest.raises(NotFound, match="Job ghost does not exist"):
        jobs.info("ghost")


def test_the_token_is_sent_and_asked_for(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ray.token = "cluster-token"
    with quick() as jobs, pytest.raises(AuthenticationError, match="RAY_AUTH_TOKEN"):
        jobs.submit("train")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    with quick() as jobs, pytest.raises(PermissionDenied, match="RAY_AUTH_TOKEN"):
        jobs.submit("train")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "cluster-token")
    with quick() as jobs:
        assert jobs.submit("train")
        assert "cluster-token" not in repr(jobs) + repr(vars(jobs))


def test_no_cluster_is_a_connection_failure_that_names_the_settings() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with quick(address=address) as jobs, pytest.raises(ConnectionFailed) as caught:
        jobs.submit("train")
    assert address in str(caught.value)
    assert "--address" in caught.value.remedy
    assert "OPENFOUND_URL" not in str(caught.value)


def test_a_cluster_too_slow_to_confirm_may_have_started_the_job() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    jobs = quick(transport=httpx.MockTransport(handler))
    with pytest.raises(Timeout, match="may have started all the same: `openfound job status n1`"):
        jobs.submit("train", submission_id="n1")


def test_following_outlasts_a_short_silence(ray: Any) -> None:
    log: list[str] = []
    with quick() as jobs:
        job = jobs.submit("train")
        ray.scripted = [(500, {}, b"UnicodeDecodeError: half a character")] * 3
        assert jobs.follow(job, log.append).status == "SUCCEEDED"
    assert "".join(log) == "loading\ntraining 50%\ndone ✓\n"


def test_following_gives_up_after_a_while_and_says_the_job_goes_on(ray: Any) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with RayJobs(sleep=sleep, clock=lambda: now[0]) as jobs:
        job = jobs.submit("train")
        ray.scripted = [(500, {}, b"broken")] * 99
        with pytest.raises(ServerError, match="The job may go on: `openfound job follow train-"):
            jobs.follow(job, lambda part: None)
    assert PATIENCE <= now[0] <= PATIENCE + SLOWEST_POLL


def test_a_log_that_begins_anew_is_shown_from_its_start() -> None:
    logs = iter(["one\ntwo\n", "three\n", "three\nfour\n"])
    states = iter(["RUNNING", "RUNNING", "SUCCEEDED"])

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            return httpx.Response(200, json={"logs": next(logs)})
        return httpx.Response(200, json={"submission_id": "x", "status": next(states)})

    shown: list[str] = []
    quick(transport=httpx.MockTransport(handler)).follow("x", shown.append)
    assert shown == ["one\ntwo\n", "three\n", "four\n"]


def test_a_quiet_job_is_looked_at_less_and_less() -> None:
    slept: list[float] = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            return httpx.Response(200, json={"logs": ""})
        status = "RUNNING" if len(slept) < 12 else "SUCCEEDED"
        return httpx.Response(200, json={"submission_id": "x", "status": status})

    jobs = RayJobs(transport=httpx.MockTransport(handler), sleep=slept.append)
    jobs.follow("x", print)
    assert slept == sorted(slept)
    assert slept[-1] == SLOWEST_POLL


@pytest.mark.parametrize("answer", ["<html>", "[]", '{"status": "DREAMING"}', '{"logs": 3}'])
def test_something_that_is_no_dashboard_is_noticed(answer: str) -> None:
    jobs = quick(transport=httpx.MockTransport(lambda request: httpx.Response(200, text=answer)))
    for call in (jobs.info, jobs.logs):
        with pytest.raises(UnexpectedAnswer, match="Ray dashboard"):
            call("x")


def test_a_traceback_of_ray_s_is_told_in_its_last_line() -> None:
    text = "Traceback (most recent call last):\n  File x\nValueError: no such runtime env\n"
    jobs = quick(transport=httpx.MockTransport(lambda request: httpx.Response(400, text=text)))
    with pytest.raises(Exception, match="Ray answered 400: ValueError: no such runtime env"):
        jobs.submit("train")
