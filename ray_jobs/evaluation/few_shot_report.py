"""The report's section about seed users: Table 3, the curve, hard negatives, Figure 3."""

from __future__ import annotations

from typing import Any

from ray_jobs.evaluation import paper
from ray_jobs.evaluation.few_shot import COUNTS, FEW
from ray_jobs.evaluation.markdown import at_threshold, number, quoted, table

_GROUPS = "AB"
_ASKED = {
    "name": "asked by the category's name",
    "paraphrase": "asked in other words, as the service reads them",
}


def section(report: dict[str, Any]) -> str:
    """Every trial, prompt tokens among the methods where they were measured."""
    trials = _merged(report["few_shot"]["trials"], report.get("prompt_tokens", {}).get("trials"))
    wordings = list(dict.fromkeys(trial["wording"] for trial in trials))
    one = {(trial["wording"], trial["seeds"], trial["hard"]): trial for trial in trials}
    parts = ["## Few-shot: a sentence and a few seed users (Table 3)", _about(trials)]
    if not report.get("prompt_tokens"):
        parts.append("Prompt tokens (eq. 16) were not measured: `--only prompt-tokens`, or --full.")
    for wording in wordings:
        parts += [
            f"### {FEW} + {FEW} seeds, {_ASKED[wording]}", _ranked(one[wording, FEW, False]),
            "At a threshold that was fixed earlier, accuracy / precision / recall:",
            _thresholded(one[wording, FEW, False]),
        ]  # fmt: skip
    parts.append(
        quoted("Table 3, 10 seed users, accuracy / precision / recall in per cent", paper.FEW_SHOT)
    )
    for wording in wordings:
        parts += [f"### {FEW} + {FEW} seeds with hard negatives, {_ASKED[wording]}",
                  _ranked(one[wording, FEW, True])]  # fmt: skip
    for wording in wordings:
        parts += [f"### More seeds, {_ASKED[wording]}",
                  _curve([one[wording, count, False] for count in COUNTS])]  # fmt: skip
    if not report["few_shot"]["map"]:
        return "\n\n".join(parts)
    parts += [
        "### Where the queries stand (Figure 3)",
        f"Users of “{report['few_shot']['map']}”, {FEW} seeds of each sort, the negatives hard. "
        "Stars that lie on one another are queries that hardly differ.",
        "![Users, hard negatives and queries on a plane](few_shot.png)",
    ]
    return "\n\n".join(parts)


def _about(trials: list[dict[str, Any]]) -> str:
    draws = {trial["seeds"]: trial["draws"] for trial in trials}
    return (
        "All tasks of groups A and B with at least twice as many users of each sort as seeds, "
        f"{draws[FEW]} draws of {FEW} + {FEW} seed users each ({draws[COUNTS[-1]]} of more), left "
        "out of the ranking; every method on the same seeds and vectors. Ours minus the method, "
        "in means over tasks and draws, with its 95 % interval over households. Threshold: as "
        "many of the users are chosen as did it eight weeks before. Hard negatives: of the 100 "
        "whom the sentence ranks highest among those who did not do it."
    )


def _merged(
    trials: list[dict[str, Any]], more: list[dict[str, Any]] | None
) -> list[dict[str, Any]]:
    if more is None:
        return trials
    return [
        {**trial, "methods": {**trial["methods"], **other["methods"]}}
        for trial, other in zip(trials, more, strict=True)
    ]


def _ranked(trial: dict[str, Any]) -> str:
    rows = [
        [name, *(_cell(cells.get(group)) for group in _GROUPS),
         *(_gain(cells, figure) for figure in ("precision_at_k", "auc"))]
        for name, cells in trial["methods"].items()
    ]  # fmt: skip
    head = ["method", *(f"{group}: AUC / precision@k (tasks)" for group in _GROUPS),
            "ours − this, precision@k", "ours − this, AUC"]  # fmt: skip
    return table(head, rows)


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return f"{number(cell['auc'])} / {number(cell['precision_at_k'])} ({cell['tasks']})"


def _gain(cells: dict[str, Any], figure: str) -> str:
    if "ours minus this" not in cells:
        return ""
    gain = cells["ours minus this"]["all"][figure]
    return f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"


def _thresholded(trial: dict[str, Any]) -> str:
    rows = [[name, *(at_threshold(cells.get(group)) for group in _GROUPS)]
            for name, cells in trial["methods"].items()]  # fmt: skip
    return table(["method", *_GROUPS], rows)


def _curve(trials: list[dict[str, Any]]) -> str:
    rows = [
        [group, name, *(_cell(trial["methods"].get(name, {}).get(group)) for trial in trials)]
        for group in _GROUPS
        for name in trials[0]["methods"]
    ]
    head = ["group", "method", *(f"{t['seeds']} + {t['seeds']}" for t in trials)]
    return "AUC / precision@k (tasks).\n\n" + table(head, rows)
