"""How good a snapshot is: zero-shot targeting and linear probes against simple baselines.

    python -m ray_jobs.evaluate --suite found --workspace DIR --out REPORT

Writes report.md, report.json and a figure. The snapshot is judged on what happened from its
``as_of`` on, which its weights have not seen. The tasks are those of Complete Journey.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field
from rich.progress import track

from encoders.query import QueryEncoder
from feature_repo import durable
from feature_repo.errors import InputError
from feature_repo.manifest import Manifest, check_space_dates
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import open_tables
from ray_jobs import metrics, visualise
from ray_jobs.build_features import read_dataset
from ray_jobs.command import Job, console, main
from ray_jobs.probes import probe
from ray_jobs.protocol import Protocol, Task

_LEGEND = (
    "Groups: A buys a category, B buys it for the first time in 26 weeks, C redeems a coupon, "
    "D overall behaviour, E profile. Equal counts are ordered by recent activity."
)

Scorer = Callable[[Task], np.ndarray]


class Evaluate(Job):
    """Evaluate a snapshot."""

    suite: Literal["found"] = "found"
    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for report.md, report.json and figures")
    splits: int = Field(5, ge=1, description="splits of each linear probe")
    probes: bool = Field(True, description="--no-probes leaves out the slower half")


def run(settings: Evaluate) -> dict[str, Any]:
    """Measure, write the report, return it."""
    workspace, out = settings.place, Path(settings.out).resolve()
    snapshots = SnapshotStore(workspace)
    manifest = snapshots.load(settings.snapshot) if settings.snapshot else snapshots.live()
    check_space_dates(manifest.trained_as_of, [manifest.as_of])
    dataset = read_dataset(workspace)
    if dataset.source != "complete-journey":
        raise InputError(f"suite: found is defined on complete-journey, this is {dataset.source}")
    con = open_tables(workspace.root / dataset.tables)
    protocol = Protocol(con, manifest.as_of)
    tasks = protocol.tasks()
    report = {
        "snapshot": manifest.id, "space": manifest.space, "as_of": manifest.as_of.isoformat(),
        "trained_as_of": manifest.trained_as_of.isoformat(), "households": manifest.num_users,
        "zero_shot": zero_shot(workspace, manifest, protocol, tasks),
    }  # fmt: skip
    if settings.probes:
        users = snapshot_users(workspace, manifest)
        report["probes"] = {
            kind: probe(np.load(workspace.root / entry.matrix), users, tasks,
                        splits=settings.splits)
            for kind, entry in track(manifest.kinds.items(), "  probes", console=console)
        }  # fmt: skip
    con.close()
    out.mkdir(parents=True, exist_ok=True)
    visualise.zero_shot_bars(report["zero_shot"], out / "zero_shot.png")
    durable.write(
        out / "report.json", json.dumps(_plain(report), indent=2, allow_nan=False).encode()
    )
    durable.write(out / "report.md", to_markdown(report).encode())
    console.print(f"report: {out / 'report.md'}")
    return report


def zero_shot(
    workspace: Workspace, manifest: Manifest, protocol: Protocol, tasks: list[Task]
) -> dict[str, Any]:
    """Metrics per method and group: the sentence against counts of the past."""
    scorers: dict[str, Scorer] = {
        "sentence": sentence_scorer(workspace, manifest),
        "past 26-week count": count_scorer(protocol, protocol.past_counts),
        "recency-weighted count": count_scorer(protocol, protocol.recency_weighted),
    }
    results: dict[str, Any] = {}
    for name, scorer in scorers.items():
        for task in tasks:
            if task.sentence is None or (name != "sentence" and task.group not in "AB"):
                continue
            scores = scorer(task)
            results.setdefault(name, {}).setdefault(task.group, []).append(
                {
                    "task": task.name,
                    "auc": metrics.auc(scores, task.labels),
                    "ks": metrics.ks(scores, task.labels),
                    "precision": metrics.precision_at(scores, task.labels),
                    "lift_5": metrics.lift_at(scores, task.labels, 0.05),
                }
            )
    return {
        name: {group: _summary(rows) for group, rows in groups.items()}
        for name, groups in results.items()
    }


def sentence_scorer(workspace: Workspace, manifest: Manifest) -> Scorer:
    """Score of a household = inner product of its fused vector with the sentence's."""
    encoder = QueryEncoder.open(workspace.root / manifest.checkpoints["alignment"].path)
    vectors = np.load(workspace.root / manifest.entry("fused").matrix)
    position = {user: row for row, user in enumerate(snapshot_users(workspace, manifest))}

    def score(task: Task) -> np.ndarray:
        query = encoder.encode([task.sentence or ""])[0]
        return vectors[[position[user] for user in task.users]] @ query

    return score


def count_scorer(protocol: Protocol, counts: Callable[[str], dict[str, float]]) -> Scorer:
    """Score = count of the category; equal counts are ordered by overall recent activity."""
    activity = protocol.activity()
    top = max(activity.values(), default=1.0) + 1.0

    def score(task: Task) -> np.ndarray:
        count = counts(task.name)
        return np.array([count.get(u, 0.0) + 1e-6 * activity.get(u, 0.0) / top for u in task.users])

    return score


def to_markdown(report: dict[str, Any]) -> str:
    """The report as a page of tables."""
    lines = [
        f"# Snapshot {report['snapshot']}", "",
        f"Complete Journey, {report['households']:,} households, as of {report['as_of'][:10]}, "
        f"weights trained on what was known before {report['trained_as_of'][:10]}.", "",
        "## Zero-shot: one sentence ranks the whole population", "",
        "| method | group | tasks | AUC | KS | precision@k | lift at 5 % |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method, groups in report["zero_shot"].items():
        for group, row in groups.items():
            lines.append(
                f"| {method} | {group} | {row['tasks']} | {row['auc']:.3f} | {row['ks']:.3f} | "
                f"{row['precision']:.3f} | {row['lift_5']:.2f} |"
            )
    if "probes" in report:
        lines += ["", "## Linear probes of frozen vectors (AUC / KS)", "",
                  "| vectors | A | B | C | D | E |", "|---|---|---|---|---|---|"]  # fmt: skip
        for kind, groups in report["probes"].items():
            cells = [
                f"{groups[g]['auc']:.3f} / {groups[g]['ks']:.3f}" if g in groups else "–"
                for g in "ABCDE"
            ]
            lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += ["", _LEGEND, ""]
    return "\n".join(lines)


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("auc", "ks", "precision", "lift_5")
    return {"tasks": len(rows), **{n: metrics.mean(r[n] for r in rows) for n in names},
            "each": rows}  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON has no NaN: what has no value becomes null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def snapshot_users(workspace: Workspace, manifest: Manifest) -> list[str]:
    """Who the rows of the snapshot's matrices are."""
    users: list[str] = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    return users


if __name__ == "__main__":
    main(Evaluate, run)
