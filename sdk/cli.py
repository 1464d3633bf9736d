"""The command ``openfound``: the SDK on the command line.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 the service
or the job failed, 2 the input was wrong, 130 interrupted. The API key is read from the environment
only, because arguments show in the process list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from typer.core import TyperGroup

from sdk import cli_access, cli_audiences, cli_jobs, cli_why, display
from sdk.audience import Audience
from sdk.cli_options import (
    Buyers,
    Exclude,
    Include,
    Json,
    Kind,
    MinProbability,
    MinScore,
    Out,
    Rules,
    Seconds,
    Share,
    Size,
    Url,
    Without,
    ask,
    check_out,
    choosing,
    ids_of,
    print_saved,
    show_audience,
    stderr,
    stdout,
)
from sdk.client import Client
from sdk.errors import InvalidRequest, NotFound, OpenFoundError, TooLarge, UsageError
from sdk.settings import DEFAULT_TIMEOUT, installed_version
from sdk.types import DEFAULT_KIND, Activation, Prompt, SnapshotsResponse, TuneMethod

USER_INPUT: Final = (UsageError, InvalidRequest, NotFound, TooLarge)

Result = TypeVar("Result")


class _Commands(TyperGroup):
    """Prints an error of ours as two lines with an exit code, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OpenFoundError as error:
            display.print_error(stderr(), error)
            raise typer.Exit(2 if isinstance(error, USER_INPUT) else 1) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Pick audiences with one sentence, fetch user embeddings, retrain and roll back.\n\n"
    "The service is at OPENFOUND_URL (default http://127.0.0.1:8000), its key in "
    "OPENFOUND_API_KEY.",
    epilog='Example: openfound target "will buy diapers soon" --size 200 --out a.parquet',
)
app.command(
    # Whatever follows the verb belongs to the job, even if an option of ours has the same name.
    context_settings={"allow_interspersed_args": False},
    epilog="Example: openfound submit pipeline --preset best --as-of 2017-11-06",
)(cli_jobs.submit)
app.add_typer(cli_jobs.app, name="job")
app.add_typer(cli_audiences.app, name="audience")
app.add_typer(cli_access.app, name="keys")
app.command(epilog="Example: openfound audit --action export")(cli_access.audit)
app.command(
    epilog="Example: openfound lookalike --seeds buyers.txt --size 1000 --out like.parquet"
)(cli_audiences.lookalike)
app.command(epilog='Example: openfound plan "will buy cat food, not bought in the last 30 days"')(
    cli_audiences.plan
)
app.command(epilog='Example: openfound reach "will buy diapers next month"')(cli_audiences.reach)
app.command(epilog='Example: openfound explain 12 99 --text "will buy diapers next month"')(
    cli_why.explain
)
app.command(epilog='Example: openfound portrait "will buy diapers next month" --size 500')(
    cli_why.portrait
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"openfound {installed_version()}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the command as a whole; the help text stands at ``app``."""


@app.command(
    epilog='Example: openfound target "will buy diapers next month" --size 200 --out a.parquet'
)
def target(
    text: Annotated[
        str | None, typer.Argument(help="One sentence about the users wanted.", show_default=False)
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="A tuned prompt's id, instead of a sentence.")
    ] = None,
    size: Size = None,
    min_score: MinScore = None,
    min_probability: MinProbability = None,
    share: Share = None,
    expected_buyers: Buyers = None,
    rules: Rules = None,
    include: Include = None,
    exclude: Exclude = None,
    without: Without = None,
    exact: Annotated[bool, typer.Option("--exact", help="Score every user.")] = False,
    literal: Annotated[
        bool, typer.Option("--literal", help="Take the sentence as it stands.")
    ] = False,
    kind: Kind = DEFAULT_KIND,
    out: Out = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Pick the users whom a sentence, or a tuned prompt, describes best."""
    check_out(out)
    if text is None and prompt is None and rules is None:
        raise UsageError("Missing argument TEXT.", remedy="Write a sentence, or --prompt ID.")
    chosen = choosing(
        rules=rules, include=include, exclude=exclude, without=without, size=size,
        min_score=min_score, min_probability=min_probability, share=share,
        expected_buyers=expected_buyers,
    )  # fmt: skip

    def question(client: Client) -> Audience:
        return client.target(
            text,
            prompt=prompt,
            exact=exact,
            kind=kind,
            rewrite=not literal,
            split=not literal,
            **chosen,
        )

    show_audience(ask(url, timeout, question), out, json)


@app.command(
    epilog='Example: openfound tune "will buy diapers" --positives yes.txt --negatives no.txt'
)
def tune(
    text: Annotated[str, typer.Argument(help="The sentence to sharpen.")],
    positives: Annotated[
        Path, typer.Option("--positives", help="File with one id per line of users who are meant.")
    ],
    negatives: Annotated[Path, typer.Option("--negatives", help="The same for users who are not.")],
    method: Annotated[
        TuneMethod,
        typer.Option("--method", help="posterior, or tokens before the sentence: seconds."),
    ] = "posterior",
    kind: Kind = DEFAULT_KIND,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Sharpen a sentence with a few seed users; prints the prompt's id."""
    yes, no = ids_of(positives, "--positives"), ids_of(negatives, "--negatives")
    made: Prompt = ask(
        url, timeout, lambda client: client.tune(text, yes, no, kind=kind, method=method)
    )
    if json:
        display.print_json(made.model_dump(mode="json"))
    else:
        print(f"prompt {made.prompt} ({made.positives} + {made.negatives} seed users)")
        print(f"  use     openfound target --prompt {made.prompt}")


@app.command(epilog="Example: openfound embeddings 12 99 --kind fused --out e.parquet")
def embeddings(
    ids: Annotated[list[str] | None, typer.Argument(help="User ids.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Text file with one user id per line; - is stdin.")
    ] = None,
    kind: Kind = DEFAULT_KIND,
    out: Out = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Fetch the stored embeddings of users."""
    check_out(out)
    wanted = [*(ids or []), *ids_of(file)]
    if not wanted:
        raise UsageError("No user ids were given.", remedy="Name some, or give --file ids.txt.")
    found = ask(url, timeout, lambda client: client.embeddings(wanted, kind=kind))
    if out:
        print_saved(found, out, json)
    elif json:
        display.print_json(display.embeddings_json(found))
    else:
        display.print_embeddings(stdout(), found)


@app.command(epilog="Example: openfound snapshots --json")
def snapshots(json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """List the snapshots, newest first; one is live."""
    answer: SnapshotsResponse = ask(url, timeout, lambda client: client.snapshots())
    if json:
        display.print_json(answer.model_dump(mode="json"))
    else:
        display.print_snapshots(stdout(), answer)


@app.command(epilog="Example: openfound activate 20171106_1a2b3c4d_1")
def activate(
    snapshot: Annotated[str, typer.Argument(help="Id, as `openfound snapshots` lists it.")],
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Make a snapshot live."""
    _activated(ask(url, timeout, lambda client: client.activate(snapshot)), json)


@app.command(epilog="Example: openfound rollback")
def rollback(json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """Make the snapshot live that was live before."""
    _activated(ask(url, timeout, lambda client: client.rollback()), json)


@app.command(epilog="Example: openfound health")
def health(json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """Ask whether the service is ready."""
    answer = ask(url, timeout, lambda client: client.health())
    if json:
        display.print_json(answer.model_dump(mode="json"))
    else:
        print(f"{answer.status}, live snapshot {answer.snapshot}")


def main() -> None:
    """Entry point of the command ``openfound``."""
    app(prog_name="openfound")


def _activated(done: Activation, json: bool) -> None:
    if json:
        display.print_json(done.model_dump(mode="json"))
        return
    before = f" (before: {done.previous})" if done.previous else ""
    print(f"live snapshot: {done.live}{before}")


if __name__ == "__main__":
    main()
