"""Bands of numbers as profile columns spell them: "45-54", "Under 15K", "3+"."""

from __future__ import annotations

import math
import re

from encoders.demand_words import Range


def band(value: str) -> tuple[float, float] | None:
    """The numbers that a band holds, from the first to before the second.

    >>> band("45-54"), band("Under 15K"), band("3+"), band("2")
    ((45.0, 55.0), (0.0, 15000.0), (3.0, inf), (2.0, 3.0))
    """
    scale = 1_000.0 if re.search(r"\dk\b", value.lower()) else 1.0
    ends = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", value)]
    spelt = re.sub(r"\d+(?:\.\d+)?", "n", value.lower()).replace("k", "").replace(" ", "")
    match spelt, ends:
        case (("n-n" | "n–n" | "nton"), [low, high]):
            return low * scale, (high + 1) * scale
        case (("n+" | "overn" | "nandover"), [low]):
            return low * scale, math.inf
        case (("undern" | "<n" | "belown"), [high]):
            return 0.0, high * scale
        case "n", [low]:
            return low * scale, (low + 1) * scale
    return None


def is_banded(values: frozenset[str]) -> bool:
    """Whether a column holds bands and nothing else."""
    return bool(values) and all(band(value) is not None for value in values)


def bands_in(said: Range, values: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The bands inside what is said, and those that lie on both sides of an end."""
    low = -math.inf if said.low is None else said.low
    high = math.inf if said.high is None else said.high if said.high_open else said.high + 1
    inside, astride = [], []
    for value in sorted(values, key=lambda v: band(v) or (0.0, 0.0)):
        first, end = band(value) or (0.0, 0.0)
        width = 1_000 if end >= 1_000 and math.isfinite(end) else 0
        if first >= low and end <= high + (width if not said.high_open else 0):
            inside.append(value)
        elif first < high and end > low:
            astride.append(value)
    return tuple(inside), tuple(astride)
