"""Audiences on the terminal: reach, saved ones, what changed, who overlaps."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sdk import display
from sdk.planning import Plan
from sdk.reaching import Reach
from sdk.saved import AudienceChange, AudiencePage, Overlap, SavedAudience


def show(console: Console, saved: SavedAudience, json: bool) -> None:
    """One saved audience, as JSON or in lines."""
    if json:
        display.print_json(saved.model_dump(mode="json"))
        return
    run = saved.latest
    lines = [
        f"{saved.name} ({saved.id}), saved by {saved.owner} on {saved.created_at:%Y-%m-%d}",
        f"  asked   {_asked(saved)}",
    ]
    lines += [f"  rules   {saved.words}"] if saved.words else []
    lines += [f"  members {run.size:,} of {run.population:,} users, as of {run.as_of:%Y-%m-%d}"]
    lines += [f"  heldout {saved.holdout:.0%} by {saved.holdout_key!r}"] if saved.holdout else []
    lines += [f"  from    snapshot {run.snapshot}, run {run.run} ({saved.num_runs} in all)"]
    lines += [f"  note    {note}" for note in [*run.notes, *saved.notes]]
    console.print(Text("\n".join(lines)))


def _asked(saved: SavedAudience) -> str:
    if seeds := saved.target.get("seeds"):
        return f"users like {len(seeds):,} seeds"
    return str(saved.target.get("text") or saved.target.get("prompt") or "nothing")


def print_page(console: Console, page: AudiencePage) -> None:
    """One line per saved audience."""
    table = Table("audience", "name", "members", "as of", "runs", "owner")
    for one in page.audiences:
        run = one.latest
        table.add_row(
            Text(one.id), Text(one.name), f"{run.size:,}", f"{run.as_of:%Y-%m-%d}",
            str(one.num_runs), Text(one.owner),
        )  # fmt: skip
    console.print(table)
    if page.next:
        console.print(Text(f"… and more: --after {page.next}"))


def print_change(console: Console, change: AudienceChange) -> None:
    """Who came and who left, and what should worry."""
    after = change.audience.latest
    console.print(
        Text(
            f"{change.audience.name}: {change.before.size:,} → {after.size:,} members\n"
            f"  came    {change.entered:,}\n  left    {change.left:,}\n"
            f"  stayed  {change.stayed:,} ({change.jaccard:.0%} of all in either)\n"
            f"  from    {change.before.snapshot} to {after.snapshot}"
        )
    )
    for warning in change.warnings:
        console.print(Text(f"  warning {warning}"))


def print_overlap(console: Console, found: Overlap) -> None:
    """Shared members, pair by pair, with their share of all in either."""
    table = Table("", *[Column(Text(name)) for name in found.names])
    for name, shared, alike in zip(found.names, found.shared, found.jaccard, strict=True):
        cells = [f"{n:,} ({part:.0%})" for n, part in zip(shared, alike, strict=True)]
        table.add_row(Text(name), *cells)
    console.print(table)


def print_plan(console: Console, found: Plan) -> None:
    """The two halves of a sentence."""
    console.print(Text(f"filter: {found.rules_in_words or 'nobody'}"))
    console.print(Text(f"rank by: {found.text or 'nothing'}"))
    if found.not_understood:
        console.print(Text(f"not understood: {', '.join(found.not_understood)}"))
    for note in found.notes:
        console.print(Text(f"note: {note}"))


def print_reach(console: Console, found: Reach) -> None:
    """What each size of audience would bring."""
    console.print(
        Text(
            f"{found.eligible:,} of {found.population:,} users, as of {found.as_of:%Y-%m-%d}, for "
            f"the {found.horizon_days} days that follow"
        )
    )
    table = Table("best", "score from", "expected buyers", "80 %", "precision", "lift")
    for point in found.points:
        known = point.expected_buyers is not None
        table.add_row(
            f"{point.size:,}",
            f"{point.min_score:.4f}",
            f"{point.expected_buyers:,.1f}" if known else "-",
            f"{point.low:,.0f} … {point.high:,.0f}" if known else "-",
            f"{point.precision:.1%}" if known else "-",
            "-" if point.lift is None else f"{point.lift:.2f}",
        )
    console.print(table)
    if found.useful_size is not None:
        console.print(Text(f"beyond {found.useful_size:,} users, chance does as well"))
    for note in found.notes:
        console.print(Text(f"note: {note}"))
