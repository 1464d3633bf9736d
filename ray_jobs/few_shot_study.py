"""What a few seed users add to a sentence: ours against zero-shot and every baseline.

    python -m ray_jobs.few_shot_study --workspace DIR --out REPORT

Over all tasks of groups A and B, several draws of seed users each; seeds are left out of the
ranking, for every method alike. Asked for by the category's name, and in other words as the service
reads them, another wording at each draw. Writes few_shot.json, few_shot.md and a map as in FOUND's
Figure 3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from rich.progress import track

from encoders.alignment import FoundModel
from encoders.prompt import TuneConfig, tune
from encoders.query import QueryEncoder
from encoders.rewriting import as_it_stands
from feature_repo import durable
from ray_jobs import metrics, visualise
from ray_jobs.command import Job, console, main
from ray_jobs.evaluation import demands
from ray_jobs.evaluation.subject import Subject
from ray_jobs.few_shot_methods import Demand, Method, Seeds, methods, without_tokens
from ray_jobs.protocol import Task

HARD_POOL = 100
"""Hard negatives are drawn from so many users who score highest and did not do it."""


class FewShot(Job):
    """Study few-shot targeting on a snapshot."""

    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for few_shot.md, few_shot.json and the figure")
    draws: int = Field(10, ge=1, description="draws of seed users for each task")
    steps: int = Field(40, ge=1, description="steps of prompt tuning by tokens")
    curve: bool = Field(True, description="--no-curve leaves out 5, 25 and 100 seeds")


@dataclass(frozen=True)
class Ranked:
    """Who came where: per method, task and draw the labels in the order of the ranking."""

    users: list[list[np.ndarray]]  # [task][draw] → users left, [n]
    labels: list[list[np.ndarray]]  # the same users' labels
    scores: dict[str, list[list[np.ndarray]]]  # method → [task][draw] → scores
    groups: list[str]


def run(settings: FewShot) -> dict[str, Any]:
    """Measure, write the report, return it."""
    out = Path(settings.out).resolve()
    subject = Subject.open(settings.place, settings.snapshot)
    manifest, users, vectors = subject.manifest, subject.users, subject.vectors("fused")
    tasks = [*subject.protocol.purchases(), *subject.protocol.new_buyers()]
    encoder = subject.query_encoder("catalogue")
    written = demands.read(subject.dataset.source)
    wordings = {
        "name": [[Demand(t.sentence or "", as_it_stands(t.sentence or ""))] for t in tasks],
        "paraphrase": [[Demand(text, encoder.read(text)) for text in written[t.name]]
                       for t in tasks],
    }  # fmt: skip
    report: dict[str, Any] = {"draws": settings.draws, "tasks": len(tasks)}
    for wording, asked in wordings.items():
        report[wording] = study(
            encoder, vectors, users, tasks, asked, draws=settings.draws, steps=settings.steps,
            curve=settings.curve,
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    seed_map(encoder.model, vectors, users, tasks[0], out / "few_shot.png")
    durable.write(out / "few_shot.json", json.dumps(report, indent=2).encode())
    lines = [f"# Few-shot targeting, snapshot {manifest.id}", "", *to_markdown(report)]
    durable.write(out / "few_shot.md", "\n".join(lines).encode())
    console.print(f"report: {out / 'few_shot.md'}")
    return report


def study(
    encoder: QueryEncoder,
    vectors: np.ndarray,
    users: Sequence[str],
    tasks: Sequence[Task],
    asked: Sequence[Sequence[Demand]],
    *,
    draws: int = 10,
    steps: int = 40,
    curve: bool = True,
) -> dict[str, Any]:
    """Everything for one space: ten seeds, the curve over seeds, hard negatives.

    Args:
        vectors: [U, D] in the order of ``users``, who include everybody in ``tasks``.
        asked: the demands of each task; draws take them in turn.
    """
    position = {user: row for row, user in enumerate(users)}
    rows = [np.array([position[user] for user in task.users]) for task in tasks]
    populations = [vectors[each] for each in rows]
    by_name = methods(encoder, vectors, steps=steps)
    report: dict[str, Any] = {}
    ten = rank(by_name, populations, rows, tasks, asked, seeds=10, draws=draws)
    report["ten"] = summary(ten)
    hard = rank(by_name, populations, rows, tasks, asked, seeds=10, draws=draws, hard=True)
    report["hard"] = summary(hard)
    if curve:
        quick = without_tokens(by_name)
        report["curve"] = {
            str(count): summary(
                rank(quick, populations, rows, tasks, asked, seeds=count, draws=max(1, draws // 2)),
                intervals=False,
            )
            for count in (5, 10, 25, 100)
        }
    return report


def draw(
    labels: np.ndarray, seed: Sequence[int], *, seeds: int, hard_scores: np.ndarray | None = None
) -> Seeds:
    """Seed users of one draw: the larger half positive, at random.

    Args:
        hard_scores: draw the negatives from the :data:`HARD_POOL` highest of these.
    """
    rng = np.random.default_rng(list(seed))
    positives = rng.choice(np.flatnonzero(labels), -(-seeds // 2), replace=False)
    others = np.flatnonzero(~labels)
    if hard_scores is not None:
        others = others[np.argsort(-hard_scores[others], kind="stable")[:HARD_POOL]]
    return Seeds(positives, rng.choice(others, seeds // 2, replace=False))


def rank(
    by_name: dict[str, Method],
    populations: Sequence[np.ndarray],
    rows: Sequence[np.ndarray],
    tasks: Sequence[Task],
    asked: Sequence[Sequence[Demand]],
    *,
    seeds: int,
    draws: int,
    hard: bool = False,
) -> Ranked:
    """Scores of every method on the same seeds; tasks with too few positives are left out."""
    ranked = Ranked([], [], {name: [] for name in by_name}, [])
    for number, task in track(list(enumerate(tasks)), f"  {seeds} seeds", console=console):
        if task.labels.sum() < seeds:  # at least half of them must remain to be found
            continue
        users_ND, texts = populations[number], asked[number]
        of_text = [list(range(n, draws, len(texts))) for n in range(len(texts))]
        nobody = [Seeds(rows[0][:0], rows[0][:0])]
        likely = [by_name["sentence"](text, users_ND, nobody)[0] for text in texts]
        drawn = [
            draw(task.labels, (one, number), seeds=seeds,
                 hard_scores=likely[one % len(texts)] if hard else None)
            for one in range(draws)
        ]  # fmt: skip
        left = [np.setdiff1d(np.arange(len(task.labels)), each.all) for each in drawn]
        ranked.users.append([rows[number][kept] for kept in left])
        ranked.labels.append([task.labels[kept] for kept in left])
        ranked.groups.append(task.group)
        for name, method in by_name.items():
            scores: dict[int, np.ndarray] = {}
            for text, ones in zip(texts, of_text, strict=True):
                if ones:
                    found = method(text, users_ND, [drawn[one] for one in ones])
                    scores |= dict(zip(ones, found, strict=True))
            ranked.scores[name].append([scores[one][kept] for one, kept in enumerate(left)])
    return ranked


def summary(ranked: Ranked, *, intervals: bool = True) -> dict[str, Any]:
    """Mean AUC and precision@k per method and group; ours minus each with its 95 % interval."""
    replicates = resampled(ranked) if intervals else {}
    result: dict[str, Any] = {}
    for name, by_task in ranked.scores.items():
        cells: dict[str, Any] = {}
        for group in sorted({*ranked.groups}):
            which = [i for i, g in enumerate(ranked.groups) if g == group]
            pairs = [
                (score, label)
                for i in which
                for score, label in zip(by_task[i], ranked.labels[i], strict=True)
            ]
            cells[group] = {
                "tasks": len(which),
                "auc": metrics.mean(metrics.auc(s, y) for s, y in pairs),
                "precision": metrics.mean(metrics.precision_at(s, y) for s, y in pairs),
            }
        if intervals and name != "ours":
            gain = replicates["ours"] - replicates[name]
            low, high = np.quantile(gain[1:], [0.025, 0.975])
            cells["ours minus this"] = {
                "precision": float(gain[0]), "low": float(low), "high": float(high)
            }  # fmt: skip
        result[name] = cells
    return result


def resampled(ranked: Ranked, *, rounds: int = 200) -> dict[str, np.ndarray]:
    """Mean precision@k over tasks and draws: as it is, then for resampled households. [1 + rounds]

    Households are resampled once for all tasks, draws and methods (Poisson weights), so that
    differences between methods are paired.
    """
    count = 1 + max((int(u.max()) for each in ranked.users for u in each), default=0)
    weights = np.random.default_rng(0).poisson(1.0, (rounds + 1, count)).astype(np.float32)
    weights[0] = 1.0
    return {
        name: np.mean(
            [
                np.mean(
                    [
                        _weighted_precision(score, label, user, weights)
                        for score, label, user in zip(*each, strict=True)
                    ],
                    axis=0,
                )
                for each in zip(by_task, ranked.labels, ranked.users, strict=True)
            ],
            axis=0,
        )
        for name, by_task in ranked.scores.items()
    }


def _weighted_precision(
    scores: np.ndarray, labels: np.ndarray, users: np.ndarray, weights_RU: np.ndarray
) -> np.ndarray:
    """Precision@k of each row of users' weights, k = weight of the positives. [R]"""
    order = np.argsort(-scores, kind="stable")
    weights = weights_RU[:, users[order]]
    hits = weights * labels[order]
    k = hits.sum(1, keepdims=True)
    inside = np.cumsum(weights, axis=1) <= k
    return np.asarray((hits * inside).sum(1) / np.maximum(k[:, 0], 1.0))


def seed_map(
    model: FoundModel, vectors: np.ndarray, users: Sequence[str], task: Task, path: Path
) -> Path:
    """FOUND's Figure 3 for one task: seeds, hard negatives, and where the query stands."""
    position = {user: row for row, user in enumerate(users)}
    users_ND = vectors[[position[user] for user in task.users]]
    sentence = model.encode_text([task.sentence or ""])[0].numpy()
    seeds = draw(task.labels, (0, 0), seeds=10, hard_scores=users_ND @ sentence)
    prompt = tune(
        model, task.sentence or "", users_ND[seeds.positives], users_ND[seeds.negatives], vectors,
        TuneConfig(method="tokens"),
    )  # fmt: skip
    queries = {"sentence": sentence, "tuned prompt": prompt.query_D}
    return visualise.query_map(
        users_ND, kinds(task.labels, seeds.negatives), queries, path,
        title=f"Few-shot targeting: {task.sentence}",
    )  # fmt: skip


def kinds(labels: np.ndarray, negatives: np.ndarray) -> list[str]:
    """What a user is on the map."""
    named = np.where(labels, "did it", "did not").astype(object)
    named[negatives] = "hard negative"
    return named.tolist()


_TITLES = {"name": "by the category's name", "paraphrase": "in other words, as they are read"}


def to_markdown(report: dict[str, Any]) -> list[str]:
    """The report's section as lines."""
    lines = [
        f"{report['tasks']} tasks of groups A and B, {report['draws']} draws each, 5 + 5 seed "
        "users, left out of the ranking. AUC / precision@k; ours minus the method in precision@k "
        "with its 95 % interval over households.",
    ]
    for wording, told in _TITLES.items():
        if wording in report:
            lines += _wording(report[wording], told)
    return [*lines, ""]


def _wording(found: dict[str, Any], told: str) -> list[str]:
    lines: list[str] = []
    for part, title in (("ten", "Random negatives"), ("hard", "Hard negatives")):
        lines += ["", f"## {title}, {told}", "", "| method | A | B | ours − this |",
                  "|---|---|---|---|"]  # fmt: skip
        for name, cells in found[part].items():
            gain = cells.get("ours minus this")
            interval = "" if gain is None else (
                f"{gain['precision']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
            )  # fmt: skip
            lines.append(f"| {name} | {_cell(cells, 'A')} | {_cell(cells, 'B')} | {interval} |")
    if "curve" in found:
        counts = list(found["curve"])
        lines += ["", f"## More seeds, {told} (precision@k, A / B)", "",
                  f"| method | {' | '.join(counts)} |", f"|---|{'---|' * len(counts)}"]  # fmt: skip
        for name in found["curve"][counts[0]]:
            row = [found["curve"][count][name] for count in counts]
            lines.append(f"| {name} | {' | '.join(_curve_cell(cells) for cells in row)} |")
    return lines


def _cell(cells: dict[str, Any], group: str) -> str:
    return f"{cells[group]['auc']:.3f} / {cells[group]['precision']:.4f}" if group in cells else "–"


def _curve_cell(cells: dict[str, Any]) -> str:
    found = [f"{cells[g]['precision']:.4f}" if g in cells else "–" for g in "AB"]
    return " / ".join(found)


if __name__ == "__main__":
    main(FewShot, run)
