"""The report as a page: every table of ours beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ray_jobs.evaluation import decoys, paper
from ray_jobs.evaluation.ablations import FULL
from ray_jobs.evaluation.fusion import CONCATENATION
from ray_jobs.metrics import mean

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
         "counts and LightGBM are told what is meant, but for those that say they read it)"),
    ):  # fmt: skip
        if not report.get(name):
            continue
        parts += [f"### {title}", _ranked(report[name])]
        if differences := report["against_counts"].get(name):
            parts.append(_differences(differences))
    if differences := report["against_counts"].get("paraphrase, read"):
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
        [method, *(_triple(found[group]) if group in found else "–" for group in groups)]
        for method, found in methods.items()
    ]
    return table(["method", *groups], rows)


def _triple(row: dict[str, Any]) -> str:
    return " / ".join(number(row[name]) for name in ("accuracy", "precision", "recall"))


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
        "others; one global scale per embedding, the same for all groups.",
        table(["vectors", "width", *"ABCDE"], rows),
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


def _unseen(report: dict[str, Any]) -> str:
    found = report["unseen"]
    rows = [
        [group, str(row["tasks"]), number(row["auc"]), number(row["precision_at_k"]),
         ", ".join(f"{name.lower()} {number(auc)}" for name, auc in row["categories"].items())]
        for group, row in found["groups"].items()
    ]  # fmt: skip
    return "\n\n".join([
        "## Categories that no training sentence was about",
        f"Preset {found['preset']}; five categories at a time are left out of sentences and "
        "labels and then asked for by name.",
        table(["group", "tasks", "AUC", "precision@k", "AUC of each"], rows),
    ])  # fmt: skip


def _ablations(report: dict[str, Any]) -> str:
    found = report["ablations"]
    about = (
        f"AUC, preset {found['preset']}, as of {found['as_of'][:10]}: an earlier cut-off, on which "
        "everything may be chosen. With several seeds: mean ± standard deviation."
    )
    paragraphs = ["## Ablations (Table 5)", about, _variants(found["variants"])]
    paragraphs.append(
        quoted("Table 5, zero-shot accuracy / precision / recall in per cent", paper.ABLATIONS)
    )
    if steps := found.get("steps"):
        full = {"+ outlook, assortment and feedback (full)": found["variants"][FULL]}
        paragraphs += [
            "### From the faithful recipe to ours",
            "Each row adds to the one above it. The first is preset `laptop`.",
            _variants({**steps, **full}),
        ]
    return "\n\n".join(paragraphs)


def _variants(listed: dict[str, list[dict[str, Any]]]) -> str:
    parts = (("zero_shot", "name", "ABCD"), ("paraphrase", "other words", "ABCD"),
             ("probe", "probe", "ABCDE"))  # fmt: skip
    columns = [(part, shown, group) for part, shown, groups in parts for group in groups]
    rows = [
        [name, str(len(seeds)),
         *(_spread([one[part][group]["auc"] for one in seeds if group in one[part]])
           for part, _, group in columns)]
        for name, seeds in listed.items()
    ]  # fmt: skip
    return table(["variant", "seeds", *(f"{shown} {group}" for _, shown, group in columns)], rows)


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return number(known[0] if known else None)
    return f"{np.mean(known):.3f} ± {np.std(known, ddof=1):.3f}"


def _fusion(report: dict[str, Any]) -> str:
    found = report["fusion"]
    parts = [
        "## Fusion and its parts (Table 4's claim)",
        f"Preset {found['preset']}, one seed, linear probes of every kind of vectors: AUC, mean "
        "over groups of tasks. The paper claims that the fused vector is ahead of the "
        "concatenation of the modalities and of each alone. *Spread* is the number of directions "
        "that vectors vary in (participation ratio): what alignment leaves a probe to read.",
        "![Mean AUC of probes by steps of alignment](fusion.png)",
    ]
    for world in found["worlds"]:
        label = " — **synthetic data**" if world["source"].startswith("synthetic") else ""
        parts += [f"### {world['source']}, as of {world['as_of'][:10]}{label}",
                  _fused(world["rows"])]  # fmt: skip
    return "\n\n".join(parts)


def _fused(trained: list[dict[str, Any]]) -> str:
    others = sorted({kind for row in trained for kind in row["kinds"]} - {"fused"})
    lines = []
    for row in trained:
        kinds = row["kinds"]
        lines.append([
            row["name"], *(number(kinds[kind]["auc"], 4) for kind in ["fused", *others]),
            *_claim(kinds["fused"]["auc"], [kinds[kind]["auc"] for kind in others]),
            number(kinds["fused"]["directions"], 1), number(kinds[CONCATENATION]["directions"], 1),
        ])  # fmt: skip
    head = ["alignment", "fused", *others, "fused − best other", "the claim", "spread of fused",
            "of concatenation"]  # fmt: skip
    return table(head, lines)


def _claim(fused: float | None, others: list[float | None]) -> tuple[str, str]:
    """By how much the fused vector is ahead of the best of the others, and whether it is."""
    known = [auc for auc in others if auc is not None]
    if fused is None or not known:
        return "–", "nothing to ask"
    lead = fused - max(known)
    return f"{lead:+.4f}", "holds" if lead >= 0 else "does not hold"


def _planted(report: dict[str, Any]) -> str:
    found, worlds = report["planted"], report["planted"]["worlds"]
    rows = [
        ["nothing" if seeds[0]["removed"] else seeds[0]["plant"], str(seeds[0]["positives"]),
         number(seeds[0]["oracle"]),
         *(_spread([one[name] for one in seeds]) for name in ("name", "free words"))]
        for seeds in worlds
    ]  # fmt: skip
    head = ["shown by", "buyers", "oracle", "demand by name", "demand in free words"]
    return "\n\n".join([
        "## Planted worlds — **synthetic data**",
        f"Preset {found['preset']}, trained with {len(worlds[0])} seeds, "
        f"{worlds[0][0]['users']:,} users in each world. Mean AUC over twelve interests that only "
        "one modality shows, in words that no demand uses; the oracle knows the interest itself. "
        "With the signs of an interest taken away nothing shows "
        "it, and the world is the same whichever modality did.",
        table(head, rows),
        *_decoys(worlds),
    ])  # fmt: skip


def _decoys(worlds: list[list[dict[str, Any]]]) -> list[str]:
    told = {seeds[0]["plant"]: [one["decoys"] for one in seeds] for seeds in worlds
            if seeds[0].get("decoys")}  # fmt: skip
    if not told:
        return []
    parts = [
        "A sentence that fits two interests, with 5 seeds who buy the one and 5 who hold the other "
        "alone (planted hard negatives); mean over the seeds of training. *Holders*: share of the "
        "k best who hold the interest; *apart*: AUC of buyers against those others. Who of the "
        "holders buys is chance: nobody's precision@k can be expected above the oracle's. Ours "
        "minus each in AUC, the 95 % interval over users of the first seed."
    ]
    for plant, seeds in told.items():
        rows = []
        for method in seeds[0]:
            gain = seeds[0][method].get("ours minus this")
            interval = "" if gain is None else (
                f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
            )  # fmt: skip
            figures = (mean(one[method][each] for one in seeds) for each in decoys.FIGURES)
            rows.append([method, *map(number, figures), interval])
        head = ["few-shot method", "AUC", "precision@k", "holders", "apart", "ours − this"]
        parts += [f"### Shown by {plant}, with hard negatives", table(head, rows)]
    return parts


def _cost(report: dict[str, Any]) -> str:
    cost = report["cost"]
    parts = [[name, f"{row['all']:,}", f"{row['trained']:,}"]
             for name, row in cost["parameters"].items()]  # fmt: skip
    times = [
        [stage, number(row["seconds"], 1), number(row["per_second"], 0),
         ", ".join(row["together"]) if len(row["together"]) > 1 else ""]
        for stage, row in cost["stages"].items()
    ]  # fmt: skip
    sizes = [[kind, f"{size:,.0f}"] for kind, size in cost["bytes_per_user"].items()]
    return "\n\n".join([
        "## Cost",
        table(["part", "parameters", "trained in alignment"], parts),
        table(["stage", "seconds", "samples, rows or users per second", "timed together"], times),
        table(["embedding", "bytes per user (matrix and one date's part)"], sizes),
    ])  # fmt: skip


_SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "zero_shot": _zero_shot, "probes": _probes, "figures": _figures, "cost": _cost,
    "reliability": _reliability, "lookalikes": _lookalikes,
    "unseen": _unseen, "ablations": _ablations, "fusion": _fusion,
    "planted": _planted,
}  # fmt: skip
