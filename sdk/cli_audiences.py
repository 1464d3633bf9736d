"""Commands about audiences: ``openfound lookalike``, ``reach`` and ``audience …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from sdk import display, display_audiences
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
    show_audience,
    stdout,
)
from sdk.saved import ExportFormat, Part
from sdk.selection import FilterChoosing
from sdk.settings import DEFAULT_TIMEOUT
from sdk.types import DEFAULT_KIND

app = typer.Typer(no_args_is_help=True, help="Saved audiences: run again, compare, hold out, send.")

Audience = Annotated[str, typer.Argument(help="Id, as `openfound audience list` shows it.")]
PartOption = Annotated[Part, typer.Option("--part", help="all, target (no hold-out) or holdout.")]


def lookalike(
    seeds: Annotated[Path, typer.Option("--seeds", help="File with one id per line.")],
    text: Annotated[
        str | None, typer.Option("--text", help="Stands in if there are too few seeds.")
    ] = None,
    with_seeds: Annotated[bool, typer.Option("--with-seeds", help="Seeds may be in.")] = False,
    size: Size = None,
    min_score: MinScore = None,
    share: Share = None,
    rules: Rules = None,
    include: Include = None,
    exclude: Exclude = None,
    without: Without = None,
    kind: Kind = DEFAULT_KIND,
    out: Out = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Pick the users who are most like the seeds."""
    check_out(out)
    ids = ids_of(seeds, "--seeds")
    chosen = choosing(
        rules=rules, include=include, exclude=exclude, without=without, size=size,
        min_score=min_score, share=share,
    )  # fmt: skip
    found = ask(
        url, timeout,
        lambda client: client.lookalike(
            ids, text=text, with_seeds=with_seeds, kind=kind, **chosen
        ),
    )  # fmt: skip
    show_audience(found, out, json)


def plan(
    text: Annotated[str, typer.Argument(help="One sentence about the users wanted.")],
    kind: Kind = DEFAULT_KIND,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """How a sentence is understood: hard rules that filter, and the rest that ranks."""
    found = ask(url, timeout, lambda client: client.plan(text, kind=kind))
    if json:
        display.print_json(found.model_dump(mode="json", exclude_none=True))
    else:
        display_audiences.print_plan(stdout(), found)


def reach(
    text: Annotated[
        str | None, typer.Argument(help="One sentence about the users wanted.", show_default=False)
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="A tuned prompt's id.")] = None,
    rules: Rules = None,
    exclude: Exclude = None,
    without: Without = None,
    kind: Kind = DEFAULT_KIND,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """How many users a demand fits how well, and what each size would bring."""
    chosen = choosing(rules=rules, include=None, exclude=exclude, without=without)
    found = ask(
        url,
        timeout,
        lambda client: client.reach(text, prompt=prompt, kind=kind, **cast(FilterChoosing, chosen)),
    )
    if json:
        display.print_json(found.model_dump(mode="json"))
    else:
        display_audiences.print_reach(stdout(), found)


@app.command(
    epilog='Example: openfound audience save "Cat owners" "will buy cat food" --holdout 0.1'
)
def save(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    text: Annotated[str | None, typer.Argument(help="One sentence.", show_default=False)] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="A tuned prompt's id.")] = None,
    seeds: Annotated[
        Path | None, typer.Option("--seeds", help="File of ids: keep users like these.")
    ] = None,
    holdout: Annotated[float, typer.Option("--holdout", help="Share kept out of exports.")] = 0.0,
    holdout_key: Annotated[
        str | None, typer.Option("--holdout-key", help="Same key, same people held out.")
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
    kind: Kind = DEFAULT_KIND,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Pick users as `openfound target` or `lookalike` does, and keep them under a name."""
    like = None if seeds is None else ids_of(seeds, "--seeds")
    chosen = choosing(
        rules=rules, include=include, exclude=exclude, without=without, size=size,
        min_score=min_score, min_probability=min_probability, share=share,
        expected_buyers=expected_buyers,
    )  # fmt: skip
    saved = ask(
        url, timeout,
        lambda client: client.save(
            name, text, prompt=prompt, seeds=like, holdout=holdout, holdout_key=holdout_key,
            kind=kind, **chosen,
        ),
    )  # fmt: skip
    display_audiences.show(stdout(), saved, json)


@app.command("list", epilog="Example: openfound audience list --json")
def list_(
    limit: Annotated[int, typer.Option("--limit", help="How many at most.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="Go on behind this id.")] = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """List the saved audiences, newest first."""
    page = ask(url, timeout, lambda client: client.audiences(limit, after))
    if json:
        display.print_json(page.model_dump(mode="json"))
    else:
        display_audiences.print_page(stdout(), page)


@app.command(epilog="Example: openfound audience show 1a2b3c4d5e6f7081")
def show(
    audience: Audience, json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT
) -> None:
    """One saved audience: its plan, its rules in words, its latest run."""
    saved = ask(url, timeout, lambda client: client.get_audience(audience))
    display_audiences.show(stdout(), saved, json)


@app.command(epilog="Example: openfound audience run 1a2b3c4d5e6f7081")
def run(
    audience: Audience,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Default: live.")] = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Run it again, and say who came and who left."""
    change = ask(url, timeout, lambda client: client.rerun(audience, snapshot))
    if json:
        display.print_json(change.model_dump(mode="json"))
    else:
        display_audiences.print_change(stdout(), change)


@app.command(epilog="Example: openfound audience overlap 1a2b3c4d5e6f7081 8192a3b4c5d6e7f8")
def overlap(
    audiences: Annotated[list[str], typer.Argument(help="Two ids or more.")],
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """How many members saved audiences share, pair by pair."""
    found = ask(url, timeout, lambda client: client.overlap(audiences))
    if json:
        display.print_json(found.model_dump(mode="json"))
    else:
        display_audiences.print_overlap(stdout(), found)


@app.command(epilog="Example: openfound audience members 1a2b3c4d5e6f7081 --part holdout")
def members(
    audience: Audience,
    part: PartOption = "all",
    out: Out = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """The members at the latest run."""
    check_out(out)
    found = ask(url, timeout, lambda client: client.members(audience, part))
    show_audience(found, out, json)


@app.command(epilog="Example: openfound audience export 1a2b3c4d5e6f7081 cats.csv --format csv")
def export(
    audience: Audience,
    path: Annotated[Path, typer.Argument(help="File to write.")],
    format: Annotated[
        ExportFormat, typer.Option("--format", help="parquet, csv or iab.")
    ] = "parquet",
    part: PartOption = "target",
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Write a file to send on; the hold-out is left out unless told."""
    written = ask(
        url, timeout, lambda client: client.export(audience, path, format=format, part=part)
    )
    print(f"wrote {written}")


@app.command(epilog="Example: openfound audience send 1a2b3c4d5e6f7081 https://crm.example/hook")
def send(
    audience: Audience,
    to: Annotated[str, typer.Argument(help="https address of the webhook.")],
    part: PartOption = "target",
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Send the members to a webhook, signed."""
    sent = ask(url, timeout, lambda client: client.send(audience, to, part=part))
    if json:
        display.print_json(sent.model_dump(mode="json"))
    else:
        print(f"sent {sent.users:,} users in {sent.requests:,} requests")


@app.command(epilog="Example: openfound audience delete 1a2b3c4d5e6f7081")
def delete(audience: Audience, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """Forget it and its members."""
    gone = ask(url, timeout, lambda client: client.delete_audience(audience))
    print(f"deleted {gone.id}")
