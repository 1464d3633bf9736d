"""How the command line shows answers: rich tables on the terminal, plain JSON for programs."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdk.audience import Audience, Embeddings
from sdk.errors import OpenFoundError
from sdk.types import SnapshotsResponse

SHOWN_ROWS = 20
_SHOWN_NUMBERS = 4


def audience_json(audience: Audience) -> dict[str, Any]:
    """The answer of ``POST /v1/target``."""
    users = [{"user_id": user, "score": score} for user, score in audience]
    return audience.meta.model_dump(mode="json") | {"users": users}


def embeddings_json(embeddings: Embeddings) -> dict[str, Any]:
    """The answer of ``POST /v1/embeddings``."""
    return embeddings.meta.model_dump(mode="json") | {"embeddings": embeddings.table.to_pylist()}


def print_json(value: Any) -> None:
    """One JSON document on standard output, for a program to read: never wrapped or coloured."""
    print(json.dumps(value, ensure_ascii=False))


def print_audience(console: Console, audience: Audience) -> None:
    """What the audience says about itself, and its best members."""
    console.print(Text(repr(audience)))
    table = Table("", "user", "score")
    for rank, (user, score) in enumerate(zip(audience.ids, audience.scores, strict=True), 1):
        if rank > SHOWN_ROWS:
            break
        table.add_row(str(rank), Text(user), f"{score:.4f}")
    console.print(table)
    _print_rest(console, len(audience))


def print_embeddings(console: Console, embeddings: Embeddings) -> None:
    """The first numbers of the first vectors, and who is missing."""
    console.print(Text(repr(embeddings)))
    table = Table("user", f"first numbers of {embeddings.dim}")
    vectors = embeddings.matrix.slice(0, SHOWN_ROWS).to_pylist()
    for user, vector in zip(embeddings.ids, vectors, strict=False):
        numbers = "  ".join(f"{number:+.4f}" for number in vector[:_SHOWN_NUMBERS])
        table.add_row(Text(user), numbers)
    console.print(table)
    _print_rest(console, len(embeddings))
    if embeddings.missing:
        named = ", ".join(embeddings.missing[:SHOWN_ROWS])
        more = " …" if len(embeddings.missing) > SHOWN_ROWS else ""
        console.print(Text(f"missing: {named}{more}"))


def print_snapshots(console: Console, answer: SnapshotsResponse) -> None:
    """One line per snapshot, the live one marked."""
    table = Table("", "snapshot", "space", "as of", "trained as of", "users", "kinds", "report")
    for one in answer.snapshots:
        table.add_row(
            "live" if one.id == answer.live else "",
            Text(one.id),
            Text(one.space[:8]),
            f"{one.as_of:%Y-%m-%d}",
            f"{one.trained_as_of:%Y-%m-%d}",
            f"{one.num_users:,}",
            Text(" ".join(one.kinds)),
            Text(one.report or ""),
        )
    console.print(table)
    for problem in answer.problems:
        console.print(Text(f"unreadable: {problem}"))


def print_error(console: Console, error: OpenFoundError) -> None:
    """What happened in one line, and what to do in another."""
    console.print(Text(f"error: {error.message}"), soft_wrap=True)
    if error.remedy:
        console.print(Text(f"  try: {error.remedy}"), soft_wrap=True)


def _print_rest(console: Console, rows: int) -> None:
    if rows > SHOWN_ROWS:
        rest = rows - SHOWN_ROWS
        console.print(Text(f"… and {rest:,} more: --out FILE.parquet or --json gives all."))
