"""Every downstream model over every task: trained alike, tested on users nobody has seen.

The rate is chosen among the paper's three on the first repeat's validation, for each model and task
anew, and kept for the other repeats: the same budget of search for all. What is kept of a test user
is its score (yes or no) or its mean figures (recommendation), so that differences between models
can be bootstrapped over households, each household with all of its repeats at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch

from encoders.text import LineEncoder
from encoders.transfer import Build, Encoder, FineTuned, Inputs, PTrans, TTrans, UMlp
from feature_repo.errors import InputError
from ray_jobs import metrics
from ray_jobs.command import console
from ray_jobs.downstream import (
    Binary,
    Fitting,
    Recommendation,
    Split,
    fit,
    predict,
    scaled,
)
from ray_jobs.evaluation.bootstrap import Resamples, difference
from ray_jobs.one4all.logs import LogTable
from ray_jobs.one4all.tasks import Downstream

SAMPLED = 100
TOP = 10
BINARY = ("auroc", "f1", "accuracy")
RECOMMENDATION = ("hr", "ndcg", "mrr", "hr_full", "ndcg_full", "mrr_full")
EXTREME = 0.1  # cold and heavy: the shortest and longest tenth of task-specific logs


@dataclass(frozen=True)
class World:
    """What models read of all users: embeddings, raw purchases, a tunable encoder if there is one.

    Args:
        users: in the order of all rows below.
        vectors_NU: frozen embeddings.
    """

    users: Sequence[str]
    vectors_NU: np.ndarray
    purchases: LogTable
    lines: LineEncoder
    encoder: Callable[[], Encoder] | None = None  # makes a fresh pre-trained one

    def inputs(self, task: Downstream) -> Inputs:
        """The same of the task's users. Raises InputError if one has no embedding."""
        row = {user: n for n, user in enumerate(self.users)}
        rows = np.array([row.get(user, -1) for user in task.users], np.int64)
        vectors = scaled(self.vectors_NU)
        if missing := int((rows < 0).sum()):
            raise InputError(
                f"users: {missing} of {len(rows)} users of {task.name!r} have no embedding; embed "
                "again as of the same date"
            )
        index = torch.from_numpy(rows)
        log = task.task_log.logs if task.task_log else None
        return Inputs(vectors[index], self.purchases.logs.whole(index), log, index)

    def models(self, task: Downstream) -> dict[str, Build]:
        """The models that this task can be given to, by their name in the paper."""
        dim = self.vectors_NU.shape[1]

        def raw(out: int, **more: int) -> PTrans:
            return PTrans(embedding=self.purchases.embedding(self.lines), out=out, **more)

        found: dict[str, Build] = {
            "U-MLP": lambda out: UMlp(embedding_dim=dim, out=out),
            "P-Trans": raw,
            "UP-Trans": lambda out: raw(out, embedding_dim=dim),
        }
        if (log := task.task_log) is not None:
            found["T-Trans"] = lambda out: TTrans(embedding=log.embedding(self.lines), out=out)
        return found

    def fine_tuned(self, out: int) -> FineTuned:
        """The pre-trained encoder under a fresh head."""
        assert self.encoder is not None
        return FineTuned(encoder=self.encoder(), out=out)


def run(
    task: Downstream, name: str, build: Build, inputs: Inputs, settings: Fitting, repeats: int
) -> dict[str, Any]:
    """One model on one task: figures of every repeat, and what is needed to compare it."""
    found: list[dict[str, Any]] = []
    chosen, started = settings, perf_counter()
    for repeat in range(repeats):
        split = Split.draw(task.groups, repeat)
        fitted = fit(task.objective, build, inputs, split, chosen, seed=repeat)
        if repeat == 0:
            chosen = replace(settings, learning_rates=(fitted.learning_rate,))
            tried = fitted.tried
        console.print(f"    {name}: repeat {repeat + 1} of {repeats}, {fitted.epochs} epochs")
        logits = {part: predict(fitted.model, inputs, rows, precision=settings.precision)
                  for part, rows in (("valid", split.valid), ("test", split.test))}  # fmt: skip
        found.append({
            "test": split.test, "epochs": fitted.epochs, "valid": fitted.quality,
            **_figures(task.objective, logits, split, repeat),
        })  # fmt: skip
    parameters = sum(p.numel() for p in fitted.model.parameters())
    return {"rate": chosen.learning_rates[0], "tried": tried, "repeats": found,
            "parameters": parameters, "seconds": perf_counter() - started}  # fmt: skip


def _figures(
    objective: Binary | Recommendation, logits: dict[str, np.ndarray], split: Split, repeat: int
) -> dict[str, Any]:
    if isinstance(objective, Binary):
        return _binary(objective, logits, split, repeat)
    return _recommended(objective, logits, split, repeat)


def _binary(
    objective: Binary, logits: dict[str, np.ndarray], split: Split, repeat: int
) -> dict[str, Any]:
    """Scores of the test users; the threshold is the best of validation by F1."""
    valid, test = logits["valid"][:, 0], logits["test"][:, 0]
    labels = objective.labels_N[split.test]
    threshold = metrics.best_threshold(valid, objective.labels_N[split.valid])
    figures = {
        "auroc": metrics.auc(test, labels),
        "f1": metrics.f1(test, labels, threshold),
        "accuracy": metrics.accuracy(test, labels, threshold),
    }
    return {"scores": test, "figures": figures}


def _recommended(
    objective: Recommendation, logits: dict[str, np.ndarray], split: Split, repeat: int
) -> dict[str, Any]:
    """Each test user's mean figures over its items: among 100 sampled others, and among all."""
    many = objective.taken_NM[split.test].sum(1)
    each: dict[str, np.ndarray] = {}
    for suffix, among in (("", SAMPLED), ("_full", None)):
        user, places = objective.places(logits["test"], split.test, among=among, seed=repeat)
        for figure, values in (("hr", places.hit_rate(TOP)), ("ndcg", places.ndcg(TOP)),
                               ("mrr", places.reciprocal())):  # fmt: skip
            each[figure + suffix] = np.bincount(user, values, len(many)) / many
    return {"each": each, "figures": {name: float(v.mean()) for name, v in each.items()}}


def popular(task: Downstream, repeats: int) -> dict[str, Any]:
    """The reference that knows nobody: items in the order of how many training users took them."""
    found = []
    assert isinstance(task.objective, Recommendation)
    for repeat in range(repeats):
        split = Split.draw(task.groups, repeat)
        logits_M = task.objective.popularity(split.train).numpy()
        logits = {"test": np.tile(logits_M, (len(split.test), 1))}
        found.append({"test": split.test, **_recommended(task.objective, logits, split, repeat)})
    return {"repeats": found}


def means(result: Mapping[str, Any]) -> dict[str, Any]:
    """Mean of every figure over the repeats."""
    repeats = [each["figures"] for each in result["repeats"]]
    return {name: metrics.mean(_number(each[name]) for each in repeats) for name in repeats[0]}


def extremes(task: Downstream, result: Mapping[str, Any]) -> dict[str, Any]:
    """Mean figures of cold and of heavy test users, and how many they are (Table 6).

    The tenth is taken by the length of the task-specific log among the users of the task; users
    tied at its border all count.
    """
    if task.task_log is None:
        return {}
    lengths = task.task_log.lengths
    low, high = np.quantile(lengths, [EXTREME, 1 - EXTREME], method="nearest")
    found = {}
    for name, chosen in (("cold", lengths <= low), ("heavy", lengths >= high)):
        rows = [(each, chosen[np.asarray(each["test"], int)]) for each in result["repeats"]]
        figures = {
            figure: metrics.mean(np.concatenate(
                [np.asarray(each["each"][figure], float)[here] for each, here in rows]
            )) for figure in RECOMMENDATION
        }  # fmt: skip
        found[name] = {**figures, "users": int(chosen.sum()),
                       "longest" if name == "cold" else "shortest":
                       int(low if name == "cold" else high)}  # fmt: skip
    return found


def against(
    task: Downstream, ours: Mapping[str, Any], theirs: Mapping[str, Any], resamples: Resamples
) -> dict[str, Any]:
    """Ours minus theirs in the task's first figure, with its interval and the verdict."""
    if isinstance(task.objective, Binary):
        pair = [_auroc(task, task.objective.labels_N, each, resamples) for each in (ours, theirs)]
    else:
        pair = [_ndcg(task, each, resamples) for each in (ours, theirs)]
    found: dict[str, Any] = difference(*pair)
    found["verdict"] = "win" if found["low"] > 0 else "loss" if found["high"] < 0 else "tie"
    return found


def _auroc(
    task: Downstream, labels: np.ndarray, result: Mapping[str, Any], resamples: Resamples
) -> np.ndarray:
    """Mean over repeats of the AUROC in every resample, [R]."""
    each = []
    for one in result["repeats"]:
        rows = np.asarray(one["test"], int)
        each.append(
            resamples.auc(np.asarray(one["scores"], float), labels[rows], list(task.users[rows]))
        )
    return np.mean(each, 0)


def _ndcg(task: Downstream, result: Mapping[str, Any], resamples: Resamples) -> np.ndarray:
    each = [
        resamples.mean(
            np.asarray(one["each"]["ndcg"], float), list(task.users[np.asarray(one["test"], int)])
        )
        for one in result["repeats"]
    ]
    return np.mean(each, 0)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
