"""The part of the command ``openfound`` that speaks to a Ray cluster: ``submit`` and ``job``.

The log of a job goes to standard output, unless ``--json`` keeps that for the result.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from sdk import display
from sdk.errors import UsageError
from sdk.jobs import VERBS, JobInfo, RayJobs, new_submission_id

_OWN_OPTIONS: Final = ("--address", "--submission-id", "--no-follow")

app = typer.Typer(no_args_is_help=True, help="Look after a submitted job.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Ray dashboard; default $RAY_API_SERVER_ADDRESS, $RAY_ADDRESS."),
]
JobId = Annotated[str, typer.Argument(help="Submission id of the job.")]


def submit(
    verb: Annotated[str, typer.Argument(help=f"One of: {' '.join(VERBS)}.")],
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Passed to the job as they are."),
    ] = None,
    address: Address = None,
    submission_id: Annotated[
        str | None,
        typer.Option("--submission-id", help="Name the job: submitted twice, it runs once."),
    ] = None,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="Print the job's id and do not wait for its end.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a job on a Ray cluster, where the code is installed, and follow its log.

    Options of this command go before the verb; all that follows the verb goes to the job.
    """
    rest = args or []
    _check_order(rest)
    # Named here, so that an interruption while the cluster thinks can still name the job.
    job = submission_id or new_submission_id(verb)
    with RayJobs(address) as jobs, _leaving(job):
        jobs.submit(verb, rest, submission_id=job)
        if no_follow:
            _print_job(jobs.info(job), json)
            return
        _note(f"job {job} at {jobs.address}")
        _follow(jobs, job, json)


@app.command(epilog="Example: openfound job follow pipeline-1a2b3c4d5e6f")
def follow(job: JobId, address: Address = None, json: Json = False) -> None:
    """Follow the log of a job to its end."""
    with RayJobs(address) as jobs, _leaving(job):
        _follow(jobs, job, json)


@app.command(epilog="Example: openfound job status pipeline-1a2b3c4d5e6f")
def status(job: JobId, address: Address = None, json: Json = False) -> None:
    """Say how a job stands."""
    with RayJobs(address) as jobs:
        _print_job(jobs.info(job), json)


@app.command(epilog="Example: openfound job stop pipeline-1a2b3c4d5e6f")
def stop(job: JobId, address: Address = None) -> None:
    """Stop a job."""
    with RayJobs(address) as jobs:
        stopped = jobs.stop(job)
    print(f"{job} is being stopped" if stopped else f"{job} was not running")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _check_order(args: list[str]) -> None:
    own = args[: args.index("--")] if "--" in args else args
    for arg in own:
        if arg.split("=")[0] in _OWN_OPTIONS:
            raise UsageError(
                f"{arg} stands after the verb, where everything goes to the job.",
                remedy="Put it first: `openfound submit --address URL VERB ARGS…`.",
            )


@contextmanager
def _leaving(job: str) -> Iterator[None]:
    """Ctrl-C ends the watching, not the job; say so."""
    try:
        yield
    except KeyboardInterrupt:
        _note(
            f"\nThe job goes on. Follow it: `openfound job follow {job}`. "
            f"Stop it: `openfound job stop {job}`."
        )
        raise typer.Exit(130) from None


def _follow(jobs: RayJobs, job: str, json: bool) -> None:
    # With --json standard output holds nothing but the JSON.
    log = sys.stderr if json else sys.stdout

    def write(part: str) -> None:
        log.write(part)
        log.flush()

    info = jobs.follow(job, write, on_status=lambda status: _note(f"job {job}: {status}"))
    if json:
        display.print_json(info.model_dump(mode="json"))
    elif info.seconds is not None:
        _note(f"job {job} took {info.seconds:.0f} s")


def _print_job(info: JobInfo, json: bool) -> None:
    if json:
        display.print_json(info.model_dump(mode="json"))
        return
    print(f"{info.submission_id}  {info.status}  {info.entrypoint}")
