"""Keys and the audit log on the terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdk.access import AuditPage, KeyInfo, KeyList, NewKey


def print_new_key(console: Console, made: NewKey) -> None:
    """The key itself on a line of its own, never wrapped, so that it can be copied."""
    console.print(Text(f"{made.name} ({made.id}) may {', '.join(made.scopes)}"))
    print(f"  key     {made.key}")
    if made.expires_at:
        console.print(Text(f"  valid   until {made.expires_at:%Y-%m-%d %H:%M} UTC"))
    if made.overlap_until:
        console.print(Text(f"  before  valid too until {made.overlap_until:%Y-%m-%d %H:%M} UTC"))
    console.print(Text("  note    this is the only time it is shown"))


def print_keys(console: Console, found: KeyList) -> None:
    """One line per key."""
    table = Table("key", "name", "owner", "may", "rate", "made", "last used", "state")
    now = datetime.now(UTC)
    for key in found.keys:
        table.add_row(
            Text(key.id), Text(key.name), Text(key.owner), ", ".join(key.scopes), key.rate or "",
            _day(key.created_at), _day(key.last_used_at), _state(key, now),
        )  # fmt: skip
    console.print(table)


def print_audit(console: Console, page: AuditPage) -> None:
    """One line per line."""
    table = Table("when", "who", "did", "audience", "detail")
    for line in page.lines:
        detail = json.dumps(line.detail, ensure_ascii=False)
        table.add_row(
            f"{line.at:%Y-%m-%d %H:%M:%S}", Text(line.who), Text(line.action),
            Text(line.audience or ""), Text(detail),
        )  # fmt: skip
    console.print(table)
    if page.next:
        console.print(Text(f"… and more: --before {page.next}"))


def _state(key: KeyInfo, now: datetime) -> str:
    if key.revoked_at:
        return f"revoked {_day(key.revoked_at)}"
    if key.expires_at and key.expires_at <= now:
        return f"expired {_day(key.expires_at)}"
    if key.overlap_until and key.overlap_until > now:
        return f"old one too until {_day(key.overlap_until)}"
    return f"until {_day(key.expires_at)}" if key.expires_at else "valid"


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else f"{moment:%Y-%m-%d}"
