"""Commands that say why: ``openfound explain`` and ``openfound portrait``."""

from __future__ import annotations

from typing import Annotated

import typer

from sdk import display, display_why
from sdk.cli_options import (
    Exclude,
    Include,
    Json,
    Kind,
    MinScore,
    Rules,
    Seconds,
    Share,
    Size,
    Url,
    Without,
    ask,
    choosing,
    stdout,
)
from sdk.settings import DEFAULT_TIMEOUT
from sdk.types import DEFAULT_KIND

Saved = Annotated[str | None, typer.Option("--audience", help="A saved audience's id instead.")]
Prompted = Annotated[str | None, typer.Option("--prompt", help="A tuned prompt's id instead.")]


def explain(
    ids: Annotated[list[str], typer.Argument(help="Up to 20 user ids.")],
    text: Annotated[str | None, typer.Option("--text", help="One sentence.")] = None,
    prompt: Prompted = None,
    audience: Saved = None,
    rules: Rules = None,
    top: Annotated[int, typer.Option("--top", help="How many parts are told.")] = 5,
    kind: Kind = DEFAULT_KIND,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Which past events and profile fields carried users' scores."""
    chosen = choosing(rules=rules, include=None, exclude=None, without=None)
    found = ask(
        url, timeout,
        lambda client: client.explain(
            ids, text, prompt=prompt, audience=audience, rules=chosen["rules"], top=top, kind=kind
        ),
    )  # fmt: skip
    if json:
        display.print_json(found.model_dump(mode="json"))
    else:
        display_why.print_explanations(stdout(), found)


def portrait(
    text: Annotated[str | None, typer.Argument(help="One sentence.", show_default=False)] = None,
    prompt: Prompted = None,
    audience: Saved = None,
    days: Annotated[int, typer.Option("--days", help="How far back behaviour counts.")] = 84,
    top: Annotated[int, typer.Option("--top", help="How many subjects are told.")] = 10,
    size: Size = None,
    min_score: MinScore = None,
    share: Share = None,
    rules: Rules = None,
    include: Include = None,
    exclude: Exclude = None,
    without: Without = None,
    kind: Kind = DEFAULT_KIND,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """What an audience did and is more often than everybody, with lifts."""
    chosen = choosing(
        rules=rules, include=include, exclude=exclude, without=without, size=size,
        min_score=min_score, share=share,
    )  # fmt: skip
    found = ask(
        url, timeout,
        lambda client: client.portrait(
            text, audience=audience, days=days, top=top, prompt=prompt, kind=kind, **chosen
        ),
    )  # fmt: skip
    if json:
        display.print_json(found.model_dump(mode="json"))
    else:
        display_why.print_portrait(stdout(), found)
