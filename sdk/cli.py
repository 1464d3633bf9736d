"""The command ``openfound``: the SDK on the command line.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 the service
or the job failed, 2 the input was wrong, 130 interrupted. The API key is read from the environment
only, because arguments show in the process list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from typer.core import TyperGroup

from sdk import cli_jobs, display
from sdk.audience import Audience, Embeddings, check_path
from sdk.client import Client
from sdk.errors import InvalidRequest, NotFound, OpenFoundError, TooLarge, UsageError
from sdk.settings import DEFAULT_TIMEOUT, installed_version
from sdk.types import DEFAULT_KIND, DEFAULT_SIZE, Activation, Prompt, SnapshotsResponse

USER_INPUT: Final = (UsageError, InvalidRequest, NotFound, TooLarge)

Result = TypeVar("Result")


class _Commands(TyperGroup):
    """Prints an error of ours as two lines with an exit code, never as a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OpenFoundError as error:
            display.print_error(_stderr(), error)
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

Url = Annotated[str | None, typer.Option("--url", help="Service; default $OPENFOUND_URL.")]
Seconds = Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Kind = Annotated[str, typer.Option("--kind", help="behaviour, tabular, search, fused, ...")]
Out = Annotated[Path | None, typer.Option("--out", help="Write all rows to FILE.parquet.")]


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
    size: Annotated[int, typer.Option("--size", help="How many users.")] = DEFAULT_SIZE,
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
    _check_out(out)
    if text is None and prompt is None:
        raise UsageError("Missing argument TEXT.", remedy="Write a sentence, or --prompt ID.")

    def question(client: Client) -> Audience:
        return client.target(
            text, prompt=prompt, size=size, exact=exact, kind=kind, rewrite=not literal
        )

    audience = _ask(url, timeout, question)
    if out:
        _saved(audience, out, json)
    elif json:
        display.print_json(display.audience_json(audience))
    else:
        display.print_audience(_stdout(), audience)


@app.command(
    epilog='Example: openfound tune "will buy diapers" --positives yes.txt --negatives no.txt'
)
def tune(
    text: Annotated[str, typer.Argument(help="The sentence to sharpen.")],
    positives: Annotated[
        Path, typer.Option("--positives", help="File with one id per line of users who are meant.")
    ],
    negatives: Annotated[Path, typer.Option("--negatives", help="The same for users who are not.")],
    kind: Kind = DEFAULT_KIND,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Sharpen a sentence with a few seed users; prints the prompt's id."""
    yes, no = _ids_of(positives, "--positives"), _ids_of(negatives, "--negatives")
    made: Prompt = _ask(url, timeout, lambda client: client.tune(text, yes, no, kind=kind))
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
    _check_out(out)
    wanted = [*(ids or []), *_ids_of(file)]
    if not wanted:
        raise UsageError("No user ids were given.", remedy="Name some, or give --file ids.txt.")
    found = _ask(url, timeout, lambda client: client.embeddings(wanted, kind=kind))
    if out:
        _saved(found, out, json)
    elif json:
        display.print_json(display.embeddings_json(found))
    else:
        display.print_embeddings(_stdout(), found)


@app.command(epilog="Example: openfound snapshots --json")
def snapshots(json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """List the snapshots, newest first; one is live."""
    answer: SnapshotsResponse = _ask(url, timeout, lambda client: client.snapshots())
    if json:
        display.print_json(answer.model_dump(mode="json"))
    else:
        display.print_snapshots(_stdout(), answer)


@app.command(epilog="Example: openfound activate 20171106_1a2b3c4d_1")
def activate(
    snapshot: Annotated[str, typer.Argument(help="Id, as `openfound snapshots` lists it.")],
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Make a snapshot live."""
    _activated(_ask(url, timeout, lambda client: client.activate(snapshot)), json)


@app.command(epilog="Example: openfound rollback")
def rollback(json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """Make the snapshot live that was live before."""
    _activated(_ask(url, timeout, lambda client: client.rollback()), json)


@app.command(epilog="Example: openfound health")
def health(json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """Ask whether the service is ready."""
    answer = _ask(url, timeout, lambda client: client.health())
    if json:
        display.print_json(answer.model_dump(mode="json"))
    else:
        print(f"{answer.status}, live snapshot {answer.snapshot}")


def main() -> None:
    """Entry point of the command ``openfound``."""
    app(prog_name="openfound")


def _stdout() -> Console:
    return Console()


def _stderr() -> Console:
    return Console(stderr=True)


def _ask(url: str | None, timeout: float, question: Callable[[Client], Result]) -> Result:
    # rich shows the spinner on terminals only.
    with Client(url, timeout=timeout) as client, _stderr().status("waiting for the service …"):
        return question(client)


def _check_out(out: Path | None) -> None:
    """Before asking: a long question must not end in a file that cannot be written."""
    if out is None:
        return
    if out.suffix != ".parquet":
        raise UsageError(
            f"--out: expected a name that ends in .parquet, got {str(out)!r}.",
            remedy=f"Write e.g. --out {out.with_suffix('.parquet').name or 'a.parquet'}.",
        )
    check_path(out)


def _saved(result: Audience | Embeddings, out: Path, json: bool) -> None:
    path = result.to_parquet(out)
    if json:
        made = {"out": str(path), "num_rows": len(result)}
        display.print_json(result.meta.model_dump(mode="json") | made)
        return
    print(repr(result))
    print(f"  wrote   {len(result):,} rows to {path}")


def _ids_of(file: Path | None, option: str = "--file") -> Iterable[str]:
    if file is None:
        return []
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{option}: {file} cannot be read ({type(error).__name__}).",
            remedy="Give a text file with one user id per line.",
        ) from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _activated(done: Activation, json: bool) -> None:
    if json:
        display.print_json(done.model_dump(mode="json"))
        return
    before = f" (before: {done.previous})" if done.previous else ""
    print(f"live snapshot: {done.live}{before}")


if __name__ == "__main__":
    main()
