"""Numbers and dates as people read them, for the pages."""

from __future__ import annotations

from datetime import UTC, datetime


def number(value: float | None) -> str:
    """1,234,567; small fractions keep a digit; nothing is a dash.

    >>> number(1234567), number(3.25), number(None)
    ('1,234,567', '3.2', '–')
    """
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:,.1f}"


def percent(value: float) -> str:
    """A share of 1 in per cent; below one per cent with a digit.

    >>> percent(0.4), percent(0.004), percent(0.0)
    ('40 %', '0.4 %', '0 %')
    """
    shown = value * 100
    return f"{shown:.1f} %" if 0 < shown < 1 else f"{shown:.0f} %"


def day(value: datetime) -> str:
    """11 September 2017."""
    return f"{value.astimezone(UTC):%-d %B %Y}"


def moment(value: datetime) -> str:
    """11 September 2017, 14:05 UTC."""
    return f"{value.astimezone(UTC):%-d %B %Y, %H:%M} UTC"
