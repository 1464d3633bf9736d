"""Send a job to a Ray cluster over its REST API, follow its log, stop it; Ray is not needed here.

A job is ``python -m ray_jobs.<verb> ARGS…`` run on the cluster, where the code is installed;
nothing is uploaded. It runs once, on the cluster, whether or not anybody follows it. Address and
token of the cluster come from Ray's own environment variables (``sdk.settings``).
"""

from __future__ import annotations

import re
import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sdk.calls import transport_error
from sdk.errors import (
    ApiError,
    ConnectionFailed,
    JobFailed,
    NotFound,
    OpenFoundError,
    ServerError,
    Timeout,
    UnexpectedAnswer,
    UsageError,
    from_problem,
)
from sdk.settings import check_timeout, ray_address, ray_token
from sdk.types import Problem

VERBS: Final = (
    "build_features",
    "embed",
    "evaluate",
    "export",
    "pipeline",
    "publish",
    "train",
    "tune_rewriter",
)
FASTEST_POLL: Final = 0.5
SLOWEST_POLL: Final = 5.0
"""Seconds between two looks at a job; each brings the whole log, so slower if nothing happens."""
PATIENCE: Final = 60.0
"""Seconds for which following a job puts up with a cluster that does not answer."""

_SUBMISSION_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REMEDIES: Final = {
    401: "Set RAY_AUTH_TOKEN to the cluster's token (`ray get-auth-token` shows it there).",
    403: "The token is another cluster's: set RAY_AUTH_TOKEN to this one's.",
    404: "Ray forgets jobs when its cluster ends; check the id and the address.",
}

JobStatus = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


class JobInfo(BaseModel):
    """What Ray says about a job."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    submission_id: str = Field(description="Id by which the job is followed and stopped.")
    status: JobStatus = Field(description="PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.")
    entrypoint: str = Field(default="", description="The command that runs on the cluster.")
    message: str | None = Field(default=None, description="The status in Ray's words.")
    start_time: int | None = Field(default=None, description="Unix time in milliseconds.")
    end_time: int | None = Field(default=None, description="Unix time in milliseconds.")
    driver_exit_code: int | None = Field(default=None, description="Exit code of the command.")

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in {"STOPPED", "SUCCEEDED", "FAILED"}

    @property
    def seconds(self) -> float | None:
        """How long it ran, once it has ended."""
        if self.start_time is None or self.end_time is None:
            return None
        return (self.end_time - self.start_time) / 1000


def entrypoint(verb: str, args: Sequence[str] = ()) -> str:
    """The shell command of a job, every argument quoted; raises UsageError for an unknown verb."""
    if verb not in VERBS:
        raise UsageError(f"verb: unknown job {verb!r}.", remedy=f"Jobs: {', '.join(VERBS)}.")
    for arg in args:
        if not isinstance(arg, str) or "\0" in arg:
            raise UsageError(f"args: expected plain strings, got {arg!r}.", remedy="Leave it out.")
    return shlex.join(["python", "-m", f"ray_jobs.{verb}", *args])


def new_submission_id(verb: str) -> str:
    """An id that no other job has."""
    return f"{verb}-{uuid.uuid4().hex[:12]}"


class RayJobs:
    """Jobs of one Ray cluster."""

    def __init__(
        self,
        address: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = ray_address(address)
        token = ray_token(self.address)
        self._timeout = check_timeout(timeout)
        self._sleep = sleep
        self._clock = clock
        self._http = httpx.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=self._timeout,
            transport=transport or httpx.HTTPTransport(retries=2),
        )

    def submit(
        self, verb: str, args: Sequence[str] = (), *, submission_id: str | None = None
    ) -> str:
        """Start a job and return its id.

        With a ``submission_id`` of one's own, submitting the same job twice starts it once: the
        second call returns the id of the job that is there. Another command under that id is a
        UsageError.
        """
        command = entrypoint(verb, args)
        job = _check_id(submission_id or new_submission_id(verb))
        body = {"entrypoint": command, "submission_id": job, "metadata": {"verb": verb}}
        try:
            self._call("POST", "/api/jobs/", json=body)
        except ApiError as error:
            # Ray answers 400 or 500 with a traceback, depending on which of its parts noticed.
            if "already exists" not in error.detail:
                raise
            self._same_command(job, command)
        except Timeout as error:
            error.remedy = f"It may have started all the same: `openfound job status {job}`."
            raise
        return job

    def info(self, job: str) -> JobInfo:
        """Status of a job; raises NotFound."""
        found = self._call("GET", f"/api/jobs/{_check_id(job)}")
        try:
            return JobInfo.model_validate(found)
        except ValidationError:
            raise self._strange("a job") from None

    def logs(self, job: str) -> str:
        """The whole log of a job so far; raises NotFound."""
        found = self._call("GET", f"/api/jobs/{_check_id(job)}/logs")
        if not isinstance(found, dict) or not isinstance(found.get("logs"), str):
            raise self._strange("a log")
        return str(found["logs"])

    def stop(self, job: str) -> bool:
        """Ask a job to stop; True if it was running. It gets seconds to end on its own."""
        found = self._call("POST", f"/api/jobs/{_check_id(job)}/stop")
        return bool(isinstance(found, dict) and found.get("stopped"))

    def follow(
        self,
        job: str,
        write: Callable[[str], object],
        *,
        on_status: Callable[[str], object] = lambda status: None,
    ) -> JobInfo:
        """Hand each new part of the log to ``write`` until the job ends.

        Returns the job if it succeeded and raises JobFailed if not. A cluster that does not answer
        for a while is put up with for a minute; the job goes on without us in any case.
        """
        shown, last, pause = 0, "", FASTEST_POLL
        while True:
            # Status before log: what is written before the end is then in the log we read.
            info, log = self._patiently(job)
            if info.status != last:
                on_status(info.status)
                last = info.status
            if len(log) < shown:  # rotated: it began anew
                shown = 0
            fresh, shown = log[shown:], len(log)
            if fresh:
                write(fresh)
            if info.ended:
                return _ended_well(info)
            pause = FASTEST_POLL if fresh else min(pause * 1.5, SLOWEST_POLL)
            self._sleep(pause)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RayJobs({self.address!r})"

    def _patiently(self, job: str) -> tuple[JobInfo, str]:
        since: float | None = None
        while True:
            try:
                return self.info(job), self.logs(job)
            except (ConnectionFailed, Timeout, ServerError) as error:
                now = self._clock()
                since = now if since is None else since
                if now - since >= PATIENCE:
                    error.remedy = f"The job may go on: `openfound job follow {job}`."
                    raise
                self._sleep(SLOWEST_POLL)

    def _same_command(self, job: str, command: str) -> None:
        there = self.info(job).entrypoint
        if there != command:
            raise UsageError(
                f"submission_id: {job!r} is taken by another job ({there}).",
                remedy="Choose another id.",
            )

    def _call(self, method: str, path: str, *, json: dict[str, Any] | None = None) -> Any:
        try:
            response = self._http.request(method, path, json=json)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if not response.is_success:
            raise _job_error(response)
        try:
            return response.json()
        except ValueError:
            raise self._strange("JSON") from None

    def _unreachable(self, error: httpx.HTTPError) -> OpenFoundError:
        failure = transport_error(error, url=self.address, timeout=self._timeout)
        failure.remedy = (
            "Check that the cluster's dashboard runs there (`ray start --head`), or set "
            "RAY_API_SERVER_ADDRESS or --address."
        )
        return failure

    def _strange(self, expected: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(
            f"{self.address} did not answer with {expected}.",
            remedy="Check that the address is a Ray dashboard's.",
        )


def _job_error(response: httpx.Response) -> ApiError:
    """Ray answers errors in plain text, often a traceback: its last line is what happened."""
    text = response.text.strip()
    detail = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    status = response.status_code
    said = f": {detail.strip()[:500]}" if detail else ""
    problem = Problem(status=status, detail=f"Ray answered {status}{said}")
    error = from_problem(problem, remedy=_REMEDIES.get(status, "The cluster's log says more."))
    if isinstance(error, NotFound) and "does not exist" not in text:
        error.remedy = "Check that the address is a Ray dashboard's."
    # The text as a whole: which line says "already exists" depends on Ray's version.
    error.detail = text or problem.detail
    return error


def _ended_well(info: JobInfo) -> JobInfo:
    if info.status == "SUCCEEDED":
        return info
    why = "was stopped" if info.status == "STOPPED" else "failed"
    if info.driver_exit_code is not None:
        why += f" with exit code {info.driver_exit_code}"
    elif info.status == "FAILED" and info.message:
        # The command never ran, so no log says why; Ray does.
        why += f": {info.message.strip()[:500]}"
    raise JobFailed(
        f"Job {info.submission_id} {why.rstrip('.')}.",
        submission_id=info.submission_id,
        status=info.status,
    )


def _check_id(job: str) -> str:
    if not isinstance(job, str) or not _SUBMISSION_ID.fullmatch(job):
        raise UsageError(
            f"submission_id: expected letters, digits, '.', '_' and '-', got {job!r}.",
            remedy="Choose one like retrain-2017-11-06.",
        )
    return job
