"""Commands for admins: ``openfound keys …`` and ``openfound audit``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, cast

import typer

from sdk import display, display_access
from sdk.access import NewKey, Scope
from sdk.cli_options import Json, Seconds, Url, ask, stdout
from sdk.errors import UsageError
from sdk.settings import DEFAULT_TIMEOUT

app = typer.Typer(no_args_is_help=True, help="API keys: make, list, rotate, revoke (admins).")

KeyId = Annotated[str, typer.Argument(help="Id, as `openfound keys list` shows it.", metavar="ID")]


@app.command(epilog="Example: openfound keys create crm --scope target --scope export --days 90")
def create(
    name: Annotated[str, typer.Argument(help="What it is for; stands in the audit log.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="read, target, export or admin; several if needed.")
    ],
    owner: Annotated[str | None, typer.Option("--owner", help="Who answers for it.")] = None,
    days: Annotated[
        float | None, typer.Option("--days", help="For how long it is valid; default for ever.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="Its own rate limit, such as 600/minute.")
    ] = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Make a key. It is shown once."""
    expires = None if days is None else datetime.now(UTC) + _days("--days", days)
    made = ask(
        url, timeout,
        lambda client: client.create_key(
            name, cast(list[Scope], scope), owner=owner, expires_at=expires, rate=rate
        ),
    )  # fmt: skip
    _show(made, json)


@app.command("list", epilog="Example: openfound keys list --json")
def list_(json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT) -> None:
    """List the keys of the service's database, newest first."""
    found = ask(url, timeout, lambda client: client.keys())
    if json:
        display.print_json(found.model_dump(mode="json"))
    else:
        display_access.print_keys(stdout(), found)


@app.command(epilog="Example: openfound keys rotate 1a2b3c4d5e6f7081 --overlap-days 7")
def rotate(
    key: KeyId,
    overlap: Annotated[
        float, typer.Option("--overlap-days", help="How long the old one stays valid too.")
    ] = 1.0,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Give a key a new secret. It is shown once."""
    both = _days("--overlap-days", overlap)
    _show(ask(url, timeout, lambda client: client.rotate_key(key, overlap=both)), json)


@app.command(epilog="Example: openfound keys revoke 1a2b3c4d5e6f7081")
def revoke(
    key: KeyId, json: Json = False, url: Url = None, timeout: Seconds = DEFAULT_TIMEOUT
) -> None:
    """End a key; every replica knows it within five seconds."""
    ended = ask(url, timeout, lambda client: client.revoke_key(key))
    if json:
        display.print_json(ended.model_dump(mode="json"))
    else:
        print(f"revoked {ended.name} ({ended.id})")


def audit(
    limit: Annotated[int, typer.Option("--limit", help="How many lines at most.")] = 100,
    before: Annotated[int | None, typer.Option("--before", help="Go on before this line.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="Only this: target, export, key.create, ...")
    ] = None,
    json: Json = False,
    url: Url = None,
    timeout: Seconds = DEFAULT_TIMEOUT,
) -> None:
    """Who did what, newest first (admins)."""
    page = ask(url, timeout, lambda client: client.audit(limit, before, action))
    if json:
        display.print_json(page.model_dump(mode="json"))
    else:
        display_access.print_audit(stdout(), page)


def _days(option: str, days: float) -> timedelta:
    if not 0 <= days <= 36_500:
        raise UsageError(f"{option}: expected 0 to 36,500, got {days}.", remedy="Name days.")
    return timedelta(days=days)


def _show(made: NewKey, json: bool) -> None:
    if json:
        display.print_json(made.model_dump(mode="json"))
    else:
        display_access.print_new_key(stdout(), made)
