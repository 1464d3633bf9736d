"""The report's sections of what trains models of its own, as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray_jobs.evaluation import decoys, paper
from ray_jobs.evaluation.ablations import FULL
from ray_jobs.evaluation.fusion import CONCATENATION, RIVALS
from ray_jobs.evaluation.markdown import AT_THRESHOLD, at_threshold, number, quoted, spread, table
from ray_jobs.metrics import mean


def _unseen(report: dict[str, Any]) -> str:
    found = report["unseen"]
    rows = [
        [reading, group, str(seeds[0][group]["tasks"]),
         *(spread([one[group][name] for one in seeds]) for name in ("auc", "precision_at_k")),
         ", ".join(f"{name.lower()} {number(mean(one[group]['categories'][name] for one in seeds))}"
                   for name in seeds[0][group]["categories"])]
        for reading, seeds in found["readings"].items() for group in seeds[0]
    ]  # fmt: skip
    return "\n\n".join([
        "## Categories that no training sentence was about",
        f"Preset {found['preset']}; five categories at a time are left out of sentences and "
        "labels and then asked for by name. What was bought of them before stays in the users' "
        "vectors, for all three readings. The first has it in the query too, by feedback of the "
        "past; the second leaves that out; the third reads the words as categories that are "
        "known, as the service reads a heading that it lacks. So none of them stands for a "
        "category that nobody has bought yet. With several seeds: mean ± standard deviation.",
        table(["read by", "group", "tasks", "AUC", "precision@k", "AUC of each"], rows),
    ])  # fmt: skip


def _ablations(report: dict[str, Any]) -> str:
    found = report["ablations"]
    about = (
        f"AUC, preset {found['preset']}, as of {found['as_of'][:10]}: an earlier cut-off, on which "
        "everything may be chosen. With several seeds: mean ± standard deviation."
    )
    paragraphs = ["## Ablations (Table 5)", about, _variants(found["variants"])]
    paragraphs += [
        "### Accuracy / precision / recall by name",
        "At a threshold as in the zero-shot table; mean over seeds.",
        _thresholds(found["variants"]),
    ]
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
         *(spread([one[part][group]["auc"] for one in seeds if group in one[part]])
           for part, _, group in columns)]
        for name, seeds in listed.items()
    ]  # fmt: skip
    return table(["variant", "seeds", *(f"{shown} {group}" for _, shown, group in columns)], rows)


def _thresholds(listed: dict[str, list[dict[str, Any]]]) -> str:
    rows = [[name, *(at_threshold(_mean(seeds, group)) for group in "ABCD")]
            for name, seeds in listed.items()]  # fmt: skip
    return table(["variant", *"ABCD"], rows)


def _mean(seeds: list[dict[str, Any]], group: str) -> dict[str, float | None] | None:
    """A group's figures by name, each the mean over the seeds that have it."""
    rows = [one["zero_shot"][group] for one in seeds if group in one["zero_shot"]]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in AT_THRESHOLD}
    return {name: mean(each) if each else None for name, each in known.items()} if rows else None


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
    known = {kind for row in trained for kind in row["kinds"]} - {"fused"}
    others = sorted(known & set(RIVALS))
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
    beside = [f"{kind} {number(trained[0]['kinds'][kind]['auc'], 4)}"
              for kind in sorted(known - set(RIVALS))]  # fmt: skip
    if not beside:
        return table(head, lines)
    return f"{table(head, lines)}\n\nUntrained, and outside the claim: {', '.join(beside)}."


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
         *(spread([one[name] for one in seeds]) for name in ("name", "free words"))]
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


RENDERED: dict[str, Callable[[dict[str, Any]], str]] = {
    "unseen": _unseen, "ablations": _ablations, "fusion": _fusion, "planted": _planted,
}  # fmt: skip
