"""Messages about names that are not known: they show the nearest of those that are."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any


def unknown(path: str, what: str, name: Any, known: Any) -> str:
    """The message for a name that is not known, with the nearest of those that are."""
    near = nearest(name, known) if isinstance(name, str) else ""
    few = sorted(known)[:8]
    hint = near or (f"there are {', '.join(few)}{', …' if len(known) > 8 else ''}" if few else "")
    return f"{path}: unknown {what} {shown(name)}; {hint or 'this snapshot knows none'}"


def nearest(name: str, known: Any) -> str:
    """ "nearest: …" with up to three of the ``known`` names, or ""."""
    by_lower = {one.lower(): one for one in sorted(known)}
    parts = [low for low in by_lower if name.lower() in low][:3]
    near = dict.fromkeys([*get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6), *parts])
    return f"nearest: {', '.join(repr(by_lower[low]) for low in list(near)[:3])}" if near else ""


def shown(value: Any) -> str:
    """A value in a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
