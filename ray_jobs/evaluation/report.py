"""The report as a page: every table of ours beside the paper's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray_jobs.evaluation import few_shot_report, paper, trained_report
from ray_jobs.evaluation.markdown import at_threshold, left_out, number, quoted, table

_GROUPS = (
    "Groups: A buys a category, B buys it for the first time in 26 weeks, C redeems a coupon, "
    "D overall behaviour, E profile."
)
_WITHOUT_E = "E is left out: this build reads the demographics that E asks for."
_HOW = "How each figure is made: docs/evaluation.md."
_ZERO_SHOT = (
    ("auc", "AUC", 3), ("ks", "KS", 3), ("precision_at_k", "precision@k", 3),
    ("lift_1", "lift 1 %", 2), ("lift_5", "lift 5 %", 2), ("lift_10", "lift 10 %", 2),
    ("precision_5", "precision 5 %", 3), ("recall_5", "recall 5 %", 3),
)  # fmt: skip


def page(report: dict[str, Any]) -> str:
    """The whole report as Markdown; sections that were not measured are left out."""
    parts = [_head(report)]
    parts += [render(report) for name, render in _SECTIONS.items() if report.get(name)]
    return "\n\n".join([*parts, _legend(report), ""])


def _legend(report: dict[str, Any]) -> str:
    told = [_GROUPS, _WITHOUT_E, _HOW] if report["demographics"] else [_GROUPS, _HOW]
    return " ".join(told)


def _head(report: dict[str, Any]) -> str:
    label = " **Synthetic data.**" if report["synthetic"] else ""
    return (
        f"# Snapshot {report['snapshot']}\n\n{report['source']}, {report['households']:,} "
        f"households, as of {report['as_of'][:10]}, weights trained on what was known before "
        f"{report['trained_as_of'][:10]}.{label}{left_out(report)}"
    )


_WORDINGS = {
    "zero_shot": "The sentence names the category or behaviour",
    "paraphrase": "The demand in other words, none of its category's name (mean over wordings; "
    "counts and LightGBM are told what is meant, but for those that say they read it)",
    "strict": "The same without a word of the category's products either",
}
"""What the report calls each way to ask."""


def _zero_shot(report: dict[str, Any]) -> str:
    parts = ["## Zero-shot: one sentence ranks the whole population"]
    for name, title in _WORDINGS.items():
        if not report.get(name):
            continue
        parts += [f"### {title}", _ranked(report[name])]
        if differences := report["against_counts"].get(name):
            parts.append(_differences(differences))
        if differences := report["against_counts"].get(f"{name}, read"):
            parts += [
                "The same minus the best count of what the catalogue reads: one reader, so what "
                "is left is what the vectors have learnt.",
                _differences(differences),
            ]
    parts += [
        "![Mean AUC of every method by group](zero_shot.png)",
        "### At a threshold that was fixed earlier (Table 2)",
        "Accuracy / precision / recall when as many users are chosen as did it eight weeks "
        "before. Accuracy misleads where few users do it: random choice reaches .79 on A.",
        _thresholded(report["zero_shot"]),
        *report.get("zero_shot_left_out", ()),
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
    head = ["group", "best count", "AUC of the sentence, as it is read, minus it", "95 % interval"]
    return "Paired bootstrap over households:\n\n" + table(head, rows)


def _thresholded(methods: dict[str, Any]) -> str:
    groups = sorted({group for rows in methods.values() for group in rows})
    rows = [
        [method, *(at_threshold(found.get(group)) for group in groups)]
        for method, found in methods.items()
    ]
    return table(["method", *groups], rows)


def _figures(report: dict[str, Any]) -> str:
    images = [f"![Users by what they did next]({name})" for name in report["figures"]]
    return "\n\n".join(["## Map of the vectors (Figure 4)", *images])


def _probes(report: dict[str, Any]) -> str:
    rows = [
        [name, str(groups["dim"]), *(_probed(groups.get(group)) for group in "ABCDE")]
        for name, groups in report["probes"].items()
    ]
    return "\n\n".join([
        "## Linear probes of frozen vectors (Table 4)",
        "AUC / KS / precision@k. One logistic regression on 20 % of the households, scored on the "
        "others, unless the row names another model; one global scale per embedding, the same for "
        "all groups, unless the row says z-score.",
        table(["vectors", "width", *"ABCDE"], rows),
        *report.get("probes_left_out", ()),
        quoted("Table 4, AUC / KS in per cent", paper.PROBES),
    ])  # fmt: skip


def _probed(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    return " / ".join(number(row[name]) for name in ("auc", "ks", "precision_at_k"))


def _reliability(report: dict[str, Any]) -> str:
    found = report["reliability"]
    told = found["behaviours"] - found["abstained"]
    rows = [
        [f"{0.1 * k:.1f} – {0.1 * (k + 1):.1f}", f"{row['users']:,}", number(row["stated"]),
         number(row["happened"])]
        for k, row in enumerate(found["bins"])
    ]  # fmt: skip
    sizes = [
        [f"best {float(size):.0%}", number(row["coverage"]), number(row["score"], 1),
         number(row["rate_score"], 1)]
        for size, row in found["audiences"].items()
    ]  # fmt: skip
    return "\n\n".join([
        "## Reliability of stated probabilities",
        f"Learnt after {', '.join(found['learnt_from'])}, never from the behaviour itself. Stated "
        f"for {told:,} of {found['behaviours']:,} behaviours ({found['abstained']:,} abstained). "
        f"ECE at most .03 in {found['ece_passes']:.1%} of them, Brier skill above the past rate's "
        f"in {found['skill_passes']:.1%}, both in {found['both_pass']:.1%} (uncalibrated: "
        f"{found['raw_both_pass']:.1%}); mean ECE {found['ece']:.4f} (uncalibrated: "
        f"{found['raw_ece']:.4f}).",
        table(["probability", "pairs of user and behaviour", "stated", "happened"], rows),
        "Eighty-per-cent intervals of buyers:",
        table(["audience", "coverage", "interval score", "of the past rate"], sizes),
    ])  # fmt: skip


def _lookalikes(report: dict[str, Any]) -> str:
    found = report["lookalikes"]
    counts = sorted({count for rows in found.values() for count in rows}, key=int)
    rows = [
        [group, method, *(
            f"{number(of[c][method]['auc'])} / {number(of[c][method]['precision_at_k'])} "
            f"({of[c]['tasks']})" if c in of else "–" for c in counts
        )]
        for group, of in found.items() for method in ("seeds", "sentence")
    ]  # fmt: skip
    return "\n\n".join([
        "## Lookalikes by the number of seeds",
        "AUC / precision@k (tasks), seeds drawn among those who did it and left out of the "
        "ranking; the sentence on the same users.",
        table(["group", "ranked by", *(f"{count} seeds" for count in counts)], rows),
    ])  # fmt: skip


def _cost(report: dict[str, Any]) -> str:
    cost = report["cost"]
    parts = [[name, f"{row['all']:,}", f"{row['trained']:,}"]
             for name, row in cost["parameters"].items()]  # fmt: skip
    times = [
        [stage, number(row["seconds"], 1), number(row["step_seconds"], 1),
         number(row["per_second"], 0)]
        for stage, row in cost["stages"].items()
    ]  # fmt: skip
    sizes = [[kind, f"{size:,.0f}"] for kind, size in cost["bytes_per_user"].items()]
    return "\n\n".join([
        "## Cost",
        table(["part", "parameters", "trained in alignment"], parts),
        table(["stage", "seconds", "of these in training steps",
               "samples (in steps), rows or users per second"], times),
        table(["embedding", "bytes per user (matrix and one date's part)"], sizes),
    ])  # fmt: skip


_SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "zero_shot": _zero_shot, "probes": _probes, "figures": _figures, "cost": _cost,
    "reliability": _reliability, "lookalikes": _lookalikes, "few_shot": few_shot_report.section,
    **trained_report.RENDERED,
}  # fmt: skip
