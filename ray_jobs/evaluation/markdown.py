"""Markdown for reports: tables, figures as text, and the paper's tables marked as such."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ray_jobs.evaluation import paper

AT_THRESHOLD = ("accuracy", "precision", "recall")
"""What the paper tells of a ranking that is cut somewhere."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}"


def at_threshold(row: Mapping[str, float | None] | None) -> str:
    """Accuracy / precision / recall of a group; a dash where it was not measured."""
    if row is None:
        return "–"
    return " / ".join(number(row[name]) for name in AT_THRESHOLD)


def left_out(report: Mapping[str, Any]) -> str:
    """What the data end too early for, as a paragraph of the head; "" where they do not."""
    named = [f"{name} ({days} days)" for name, days in report.get("left_out", {}).items()]
    if not named:
        return ""
    return f"\n\n**Left out**, since the data end before so many days are over: {', '.join(named)}."


def quoted(title: str, rows: Mapping[str, tuple[str, ...]]) -> str:
    """A table of the paper, marked as such."""
    body = [[name, *cells] for name, cells in rows.items()]
    return f"*{paper.NOTE}:* {title}\n\n{table(['method', *paper.TEST_SETS], body)}"


def spread(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation; a single figure alone, a dash without any."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return number(known[0] if known else None)
    return f"{np.mean(known):.3f} ± {np.std(known, ddof=1):.3f}"
