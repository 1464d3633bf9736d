"""Explanations and portraits on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sdk.explaining import Explained, Explanations, Portrait


def print_explanations(console: Console, found: Explanations) -> None:
    """One table per user."""
    for each in found.users:
        _print_one(console, each)
    if found.missing:
        console.print(Text(f"unknown: {', '.join(found.missing)}"))
    for note in found.notes:
        console.print(Text(f"note: {note}"))


def _print_one(console: Console, user: Explained) -> None:
    out = " (the hard rules keep this user out)" if user.eligible is False else ""
    console.print(Text(f"user {user.user_id}: score {user.score:.4f}{out}"))
    table = Table("what", Column("adds", justify="right"))
    table.add_row("nothing known", f"{user.base:+.4f}")
    for part in user.contributions:
        table.add_row(Text(part.words), f"{part.contribution:+.4f}")
    table.add_row("all the rest", f"{user.rest:+.4f}")
    console.print(table)
    if user.decisive:
        named = "; ".join(part.words for part in user.decisive)
        console.print(Text(f"  without {named}: {user.score_without:.4f}"))
    for event in user.latest:
        console.print(Text(f"  latest  {event.words}"))
    for sentence in user.sentences:
        console.print(Text(f"  expects {sentence.text} ({sentence.deviations:+.1f} sd)"))


def print_portrait(console: Console, found: Portrait) -> None:
    """Behaviour, then profile, with lifts."""
    console.print(
        Text(
            f"{found.size:,} of {found.population:,} users, the {found.days} days before "
            f"{found.as_of:%Y-%m-%d}"
        )
    )
    did = Table("did", "what", "of them", "of all", "lift")
    for one in found.behaviour:
        did.add_row(
            one.verb, Text(one.subject), f"{one.share:.1%}", f"{one.everybody:.1%}",
            f"{one.lift:.1f}",
        )  # fmt: skip
    console.print(did)
    has = Table("profile", "value", "of them", "of all", "lift")
    for share in found.profile:
        has.add_row(
            Text(share.column), Text(share.value or "unknown"), f"{share.share:.1%}",
            f"{share.everybody:.1%}", f"{share.lift:.1f}",
        )  # fmt: skip
    console.print(has)
    for note in found.notes:
        console.print(Text(f"note: {note}"))
