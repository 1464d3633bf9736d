"""The suite's report as a page: every table of ours beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray_jobs.evaluation.markdown import left_out, number, table
from ray_jobs.one4all import paper

_BINARY = (("auroc", "AUROC"), ("f1", "F1"), ("accuracy", "accuracy"))
_ITEMS = (
    ("hr", "HR@10"), ("ndcg", "NDCG@10"), ("mrr", "MRR"),
    ("hr_full", "HR@10, all"), ("ndcg_full", "NDCG@10, all"), ("mrr_full", "MRR, all"),
)  # fmt: skip
_LEGEND = """Every model is trained alike: batches of 256 users, Adam, the best of three learning
rates (1e-4, 3e-4, 1e-3) on the first repeat's validation, early stopping. Nobody is in two of
training, validation and test. Yes or no: the threshold of F1 and accuracy is the best of validation
by F1. Items: the place of each taken item among 100 sampled items that were not taken, and among
all of them; the mean over a user's items, then over users. HR@10 is the share of items in the first
ten places, ties share places. How each figure is made: docs/one4all.md."""


def page(report: Mapping[str, Any]) -> str:
    """The whole report as Markdown; sections that were not measured are left out."""
    parts = [_head(report)]
    parts += [render(report) for name, render in _SECTIONS.items() if report.get(name)]
    return "\n\n".join([*parts, _LEGEND, ""])


def _head(report: Mapping[str, Any]) -> str:
    label = " **Synthetic data.**" if report["synthetic"] else ""
    return (
        f"# One4all on snapshot {report['snapshot']}\n\n{report['source']}, "
        f"{report['households']:,} households, as of {report['as_of'][:10]}; embedding: "
        f"{report['embedding']}; {report['repeats']} repeats, logs of {report['length']} events, "
        f"downstream models in {report['precision']}.{label}{left_out(report)}"
    )


def _tasks(report: Mapping[str, Any]) -> str:
    parts = ["## Frozen embeddings against models trained from scratch (Table 4)"]
    parts += _models(report["tasks"])
    counted = [
        f"against {rival}: {row['win']} won, {row['tie']} undecided, {row['loss']} lost"
        for rival, row in report["score"].items()
    ]
    parts.append(
        "**U-MLP, 95 % interval apart from zero** (paired bootstrap over households): "
        f"{'; '.join(counted)}."
    )
    quoted = [[name, *cells] for name, cells in paper.TASKS.items()]
    heads = ["task", "U-MLP: MP / MP+A / CLS / CLS+A", "P-Trans", "UP-Trans", "T-Trans"]
    parts += [f"*{paper.NOTE}:* Table 4\n\n{table(heads, quoted)}", _warning()]
    parts.append(_extremes(report["tasks"]))
    return "\n\n".join(parts)


def _warning() -> str:
    return (
        "The paper's HR@10 and MRR cannot both be standard: an MRR of .69 puts at least .66 of the "
        "items into the first ten places, where its HR@10 says .14. Neither is compared with ours."
    )


def _models(tasks: Mapping[str, Any]) -> list[str]:
    """One table of yes-or-no tasks and one of recommendations, with differences."""
    parts = []
    for columns, kinds in ((_BINARY, ("profiling", "targeting")), (_ITEMS, ("recommendation",))):
        here = {name: task for name, task in tasks.items() if task["kind"] in kinds}
        if here:
            rows = [row for name, task in here.items() for row in _rows(name, task, columns)]
            head = ["task", "model", *(shown for _, shown in columns), "U-MLP minus it", "rate"]
            parts.append(table(head, rows))
    return parts


def _rows(name: str, task: Mapping[str, Any], columns: Any) -> list[list[str]]:
    size = f"{task['users']:,} users"
    many = f"{task['pairs']:,} pairs, {task['items']:,} items" if "items" in task else (
        f"{task['positives']:,} positives")  # fmt: skip
    rows = []
    for n, (model, row) in enumerate(task["models"].items()):
        against = task["against"].get(model)
        rows.append([
            f"{name} ({size}, {many})" if n == 0 else "", model,
            *(number(row[key]) for key, _ in columns),
            "" if against is None else _difference(against), f"{row['rate']:g}",
        ])  # fmt: skip
    if "popularity" in task:
        cells = [number(task["popularity"][key]) for key, _ in columns]
        rows.append(["", "popularity (reference)", *cells, "", ""])
    return rows


def _difference(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "–"
    return f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] {row['verdict']}"


def _extremes(tasks: Mapping[str, Any]) -> str:
    rows = []
    for name, task in tasks.items():
        for model, groups in task.get("extremes", {}).items():
            for group, row in groups.items():
                border = row.get("longest", row.get("shortest"))
                sign = "≤" if group == "cold" else "≥"
                rows.append([
                    name, f"{group} ({row['users']} users, log {sign} {border})", model,
                    *(number(row[key]) for key, _ in _ITEMS),
                ])  # fmt: skip
    if not rows:
        return ""
    ours = table(["task", "users", "model", *(shown for _, shown in _ITEMS)], rows)
    quoted = table(["task", "T-Trans", "U-MLP"], [[n, *c] for n, c in paper.EXTREMES.items()])
    return (
        "### Cold and heavy users apart (Table 6)\n\nThe tenth with the shortest and the longest "
        f"task-specific log, ties included.\n\n{ours}\n\n*{paper.NOTE}:* Table 6, NDCG@10\n\n"
        f"{quoted}"
    )


def _movielens(report: Mapping[str, Any]) -> str:
    intro = (
        "## MovieLens-100k\n\nEach user's last fifth of ratings is the future; the embedding is "
        "trained on the pasts alone. Movies of the past are no candidates."
    )
    tasks = report["movielens"]
    return "\n\n".join([intro, *_models(tasks), _extremes(tasks)])


def _fine_tuning(report: Mapping[str, Any]) -> str:
    rows = [
        [name, model, *(number(row[key]) for key, _ in _BINARY),
         _difference(task["against"]) if model == "fine-tuned" else ""]
        for name, task in report["fine_tuning"].items() for model, row in task["models"].items()
    ]  # fmt: skip
    head = ["task", "model", *(shown for _, shown in _BINARY), "U-MLP minus it"]
    quoted = [[name, *cells] for name, cells in paper.TUNING.items()]
    return (
        f"## Fine-tuning the encoder (Table 5)\n\n{table(head, rows)}\n\n*{paper.NOTE}:* AUROC / "
        f"F1 / accuracy\n\n{table(['task', 'fine-tuning', 'U-MLP'], quoted)}"
    )


def _cost(report: Mapping[str, Any]) -> str:
    rows = [
        [name, f"{row['speedup']:.0f}×", f"{row['users_per_second']:,.0f}",
         f"{row['parameters']:,}", f"{row['bytes_per_user']:,.0f}",
         f"{row['shared_bytes'] / 2**20:,.1f} MiB"]
        for name, row in report["cost"].items()
    ]  # fmt: skip
    head = ["model", "speed-up", "users per second", "parameters", "bytes per user",
            "text vectors, shared"]  # fmt: skip
    quoted = [[name, *cells] for name, cells in paper.COST.items()]
    return (
        f"## Cost of a prediction (Table 3)\n\n{table(head, rows)}\n\n*{paper.NOTE}:* Table 3\n\n"
        f"{table(['model', 'inference speed-up', 'parameters', 'data'], quoted)}"
    )


def _maps(report: Mapping[str, Any]) -> str:
    images = [f"![Users on a plane by {method}]({name})" for name, method in report["maps"].items()]
    return "## What the pretext tasks never saw (Figure 2)\n\n" + "\n\n".join(images)


def _augmentation(report: Mapping[str, Any]) -> str:
    return (
        "## Mean pooling or [CLS], with augmentation or without (U-MLP columns of Table 4)\n\n"
        + _study(report["augmentation"], "pre-training")
    )


def _history(report: Mapping[str, Any]) -> str:
    study = report["history"]
    return (
        "## Length of history (Figure 3)\n\nPre-trained and embedded from the last months of the "
        f"same users' purchases; {study['known']:.1f} months are known.\n\n"
        f"{_study(study['months'], 'months')}\n\n![U-MLP by length of history](history.png)\n\n"
        f"*{paper.NOTE}:* {paper.HISTORY}"
    )


def _study(found: Mapping[str, Any], what: str) -> str:
    """Variant × task, each in its first figure."""
    names = list(next(iter(found.values())))
    rows = [
        [variant, *(number(row[name].get("auroc", row[name].get("ndcg"))) for name in names)]
        for variant, row in found.items()
    ]
    return table([what, *names], rows) + "\n\nAUROC of yes-or-no tasks, NDCG@10 of recommendations."


_SECTIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "tasks": _tasks, "movielens": _movielens, "augmentation": _augmentation, "history": _history,
    "fine_tuning": _fine_tuning, "cost": _cost, "maps": _maps,
}  # fmt: skip
