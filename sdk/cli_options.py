"""What the commands share: their common options, asking the service, reading and writing files."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from sdk import display
from sdk.audience import Audience, Embeddings, check_path
from sdk.client import Client
from sdk.errors import UsageError
from sdk.selection import Choosing

Result = TypeVar("Result")

Url = Annotated[str | None, typer.Option("--url", help="Service; default $OPENFOUND_URL.")]
Seconds = Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Kind = Annotated[str, typer.Option("--kind", help="behaviour, tabular, search, fused, ...")]
Out = Annotated[Path | None, typer.Option("--out", help="Write all rows to FILE.parquet.")]

Rules = Annotated[
    str | None, typer.Option("--rules", help="Hard rules as JSON, or @FILE.json with them.")
]
Include = Annotated[Path | None, typer.Option("--include", help="File of ids who must be in.")]
Exclude = Annotated[Path | None, typer.Option("--exclude", help="File of ids who must be out.")]
Without = Annotated[
    list[str] | None, typer.Option("--without", help="Saved audience whose members are out.")
]
Size = Annotated[int | None, typer.Option("--size", help="How many users (default 100).")]
MinScore = Annotated[float | None, typer.Option("--min-score", help="Or: who score this much.")]
MinProbability = Annotated[
    float | None, typer.Option("--min-probability", help="Or: who are this likely, calibrated.")
]
Share = Annotated[float | None, typer.Option("--share", help="Or: this part of the population.")]
Buyers = Annotated[
    float | None, typer.Option("--expected-buyers", help="Or: enough for so many buyers.")
]


def choosing(
    *,
    rules: str | None,
    include: Path | None,
    exclude: Path | None,
    without: list[str] | None,
    **cut: Any,
) -> Choosing:
    """The options about filters and cut, as keyword arguments of the client."""
    found: Choosing = {**cut, "rules": _rules(rules), "exclude_audiences": without or None}  # type: ignore[typeddict-item]
    if include is not None:
        found["include"] = ids_of(include, "--include")
    if exclude is not None:
        found["exclude"] = ids_of(exclude, "--exclude")
    return found


def _rules(given: str | None) -> Any:
    if given is None:
        return None
    try:
        text = Path(given[1:]).read_text("utf-8") if given.startswith("@") else given
        return json_module.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--rules: {given[:60]!r} cannot be read ({error}).",
            remedy='Write e.g. \'{"type": "behaviour", "verb": "bought", "days": 30}\'.',
        ) from None


def stdout() -> Console:
    """Where results go."""
    return Console()


def stderr() -> Console:
    """Where everything else goes."""
    return Console(stderr=True)


def ask(url: str | None, timeout: float, question: Callable[[Client], Result]) -> Result:
    """Ask the service; a spinner turns meanwhile."""
    # rich shows the spinner on terminals only.
    with Client(url, timeout=timeout) as client, stderr().status("waiting for the service …"):
        return question(client)


def check_out(out: Path | None) -> None:
    """Before asking: a long question must not end in a file that cannot be written."""
    if out is None:
        return
    if out.suffix != ".parquet":
        raise UsageError(
            f"--out: expected a name that ends in .parquet, got {str(out)!r}.",
            remedy=f"Write e.g. --out {out.with_suffix('.parquet').name or 'a.parquet'}.",
        )
    check_path(out)


def print_saved(result: Audience | Embeddings, out: Path, json: bool) -> None:
    """Write rows to a file and say so."""
    path = result.to_parquet(out)
    if json:
        made = {"out": str(path), "num_rows": len(result)}
        display.print_json(result.meta.model_dump(mode="json") | made)
        return
    print(repr(result))
    print(f"  wrote   {len(result):,} rows to {path}")


def show_audience(audience: Audience, out: Path | None, json: bool) -> None:
    """To a file, as JSON, or as a table."""
    if out:
        print_saved(audience, out, json)
    elif json:
        display.print_json(display.audience_json(audience))
    else:
        display.print_audience(stdout(), audience)


def ids_of(file: Path | None, option: str = "--file") -> Iterable[str]:
    """Ids of a text file, one per line; - is standard input."""
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
