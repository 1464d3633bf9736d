"""The report as a page: every table of ours beside the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray_jobs.evaluation import paper

_LEGEND = (
    "Groups: A buys a category, B buys it for the first time in 26 weeks, C redeems a coupon, "
    "D overall behaviour, E profile. How each figure is made: docs/evaluation.md."
)
_ZERO_SHOT = (
    ("auc", "AUC", 3), ("ks", "KS", 3), ("precision_at_k", "precision@k", 3),
    ("lift_1", "lift 1 %", 2), ("lift_5", "lift 5 %", 2), ("lift_10", "lift 10 %", 2),
    ("precision_5", "precision 5 %", 3), ("recall_5", "recall 5 %", 3),
)  # fmt: skip


def page(report: dict[str, Any]) -> str:
    """The whole report as Markdown; sections that were not measured are left out."""
    parts = [_head(report)]
    parts += [render(report) for name, render in _SECTIONS.items() if report.get(name)]
    return "\n\n".join([*parts, _LEGEND, ""])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def quoted(title: str, rows: dict[str, tuple[str, ...]]) -> str:
    """A table of the paper, marked as such."""
    body = [[name, *cells] for name, cells in rows.items()]
    return f"*{paper.NOTE}:* {title}\n\n{table(['method', *paper.TEST_SETS], body)}"


def _head(report: dict[str, Any]) -> str:
    label = " **Synthetic data.**" if report["synthetic"] else ""
    return (
        f"# Snapshot {report['snapshot']}\n\n{report['source']}, {report['households']:,} "
        f"households, as of {report['as_of'][:10]}, weights trained on what was known before "
        f"{report['trained_as_of'][:10]}.{label}"
    )


def _zero_shot(report: dict[str, Any]) -> str:
    parts = ["## Zero-shot: one sentence ranks the whole population"]
    for name, title in (
        ("zero_shot", "The sentence names the category or behaviour"),
        ("paraphrase", "The demand in other words, none of the catalogue's (mean over wordings; "
         "counts and LightGBM are told what is meant)"),
    ):  # fmt: skip
        if not report.get(name):
            continue
        parts += [f"### {title}", _ranked(report[name])]
        if differences := report["against_counts"].get(name):
            parts.append(_differences(differences))
    parts += [
        "### At a threshold that was fixed earlier (Table 2)",
        "Accuracy / precision / recall when as many users are chosen as did it eight weeks "
        "before. Accuracy misleads where few users do it: random choice reaches .79 on A.",
        _thresholded(report["zero_shot"]),
        quoted("Table 2, accuracy / precision / recall in per cent", paper.ZERO_SHOT),
    ]
    return "\n\n".join(parts)


def _ranked(methods: dict[str, Any]) -> str:
    rows = [
        [method, group, str(row["tasks"]),
         *(number(row[key], digits) for key, _, digits in _ZERO_SHOT)]
        for method, groups in methods.items()
        for group, row in groups.items()
    ]  # fmt: skip
    return table(["method", "group", "tasks", *(name for _, name, _ in _ZERO_SHOT)], rows)


def _differences(differences: dict[str, Any]) -> str:
    rows = [
        [group, row["best count"], f"{row['mean']:+.4f}", f"{row['low']:+.4f} … {row['high']:+.4f}"]
        for group, row in differences.items()
    ]
    head = ["group", "best count", "AUC of the sentence minus it", "95 % interval"]
    return "Paired bootstrap over households:\n\n" + table(head, rows)


def _thresholded(methods: dict[str, Any]) -> str:
    groups = sorted({group for rows in methods.values() for group in rows})
    rows = [
        [method, *(_triple(found[group]) if group in found else "–" for group in groups)]
        for method, found in methods.items()
    ]
    return table(["method", *groups], rows)


def _triple(row: dict[str, Any]) -> str:
    return " / ".join(number(row[name]) for name in ("accuracy", "precision", "recall"))


_SECTIONS = {"zero_shot": _zero_shot}
