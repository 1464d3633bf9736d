"""Does rewriting help? Written demands, ranked by the model with and without each rewriter.

    python -m ray_jobs.rewriting_study --workspace DIR --out DIR [--rewriter catalogue …]

The demands (``demands/<source>.json``) were written before anything was measured and use no word of
their category's name. ``others`` are the categories outside the protocol: choose on those. Groups
A, B, C and D are the protocol's own: report on those. What is measured happens from the snapshot's
``as_of`` on; take one before the final cut-off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from encoders.query import QueryEncoder
from encoders.rewriters import RewriterPlaces, maker
from encoders.rewriting import Choice
from feature_repo import durable
from feature_repo.manifest import Manifest, check_space_dates
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import open_tables
from ray_jobs import metrics
from ray_jobs.build_features import read_dataset
from ray_jobs.command import Job, console, main
from ray_jobs.protocol import Protocol, Task

_GROUPS = ("A", "B", "C", "D", "others")
_DEMANDS = Path(__file__).parent / "demands"
PLAIN = "category name"
"""The method that says the protocol's own sentence: what perfect rewriting would reach."""


class RewritingStudy(Job):
    """Measure rewriters on written demands."""

    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for rewriting.md and rewriting.json")
    rewriter: list[Choice] = Field(["none", "catalogue"], description="may repeat")


@dataclass(frozen=True)
class Demand:
    """A written demand and the behaviour it means."""

    text: str
    task: Task


def run(settings: RewritingStudy) -> dict[str, Any]:
    """Measure, write the tables, return them."""
    workspace, out = settings.place, Path(settings.out).resolve()
    snapshots = SnapshotStore(workspace)
    manifest = snapshots.load(settings.snapshot) if settings.snapshot else snapshots.live()
    check_space_dates(manifest.trained_as_of, [manifest.as_of])
    manifest.checkpoint("alignment")  # raises, before anything is counted
    dataset = read_dataset(workspace)
    con = open_tables(workspace.root / dataset.tables)
    demands = list(written_demands(Protocol(con, manifest.as_of)))
    con.close()
    report = study(workspace, manifest, demands, settings.rewriter)
    out.mkdir(parents=True, exist_ok=True)
    durable.write(out / "rewriting.json", json.dumps(report, indent=2).encode())
    durable.write(out / "rewriting.md", to_markdown(report).encode())
    console.print(f"report: {out / 'rewriting.md'}")
    return report


def written_demands(protocol: Protocol, source: str = "complete-journey") -> Iterator[Demand]:
    """Every demand with each task it is an answer to, in the order of the protocol."""
    written = read_demands(source)
    for task in [*protocol.purchases(), *protocol.new_buyers()]:
        for text in written["categories"][task.name]:
            yield Demand(text, task)
    for task in [protocol.coupon(), *protocol.behaviours()]:
        for text in written["behaviours"][task.name]:
            yield Demand(text, task)
    for category, texts in written["others"].items():
        task = protocol.purchase(category, group="others")
        for text in texts:
            yield Demand(text, task)


def read_demands(source: str) -> dict[str, dict[str, list[str]]]:
    """Group → task → demands, as they were written."""
    path = _DEMANDS / f"{source.replace('-', '_')}.json"
    demands: dict[str, dict[str, list[str]]] = json.loads(path.read_text())
    return demands


def study(
    workspace: Workspace, manifest: Manifest, demands: Sequence[Demand], choices: Sequence[Choice]
) -> dict[str, Any]:
    """Method → group → means over tasks, with what each demand was read as.

    ``itself`` is the share of demands that a rewriter read and no stand-in: behind the language
    model stands the catalogue's, so that figures alone do not tell the two apart.
    """
    directory = workspace.root / manifest.checkpoint("alignment").path
    vectors = np.load(workspace.root / manifest.entry("fused").matrix)
    users = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    position = {user: row for row, user in enumerate(users)}
    rows = {id(d.task): np.array([position[u] for u in d.task.users]) for d in demands}
    places = RewriterPlaces(workspace.cache, workspace.rewriter)
    report: dict[str, Any] = {}
    for choice in [*choices, PLAIN]:
        make = None if choice == PLAIN else maker(cast(Choice, choice), places)
        encoder = QueryEncoder.open(directory, make)
        scored: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for demand in demands:
            task = demand.task
            asked = task.sentence or "" if choice == PLAIN else demand.text
            reading = encoder.read(asked)
            scores = vectors[rows[id(task)]] @ encoder.mixed(reading)
            scored.setdefault(task.group, {}).setdefault(task.name, []).append({
                "demand": asked, "notes": [reading.note] if reading.note else [],
                "itself": not reading.by_stand_in, **_measures(scores, task.labels),
            })  # fmt: skip
        report[choice] = {group: _summary(tasks) for group, tasks in scored.items()}
    return report


def to_markdown(report: dict[str, Any]) -> str:
    """Means per method and group as a table, and how much the language model read itself."""
    lines = [
        "# Query rewriting", "",
        "AUC / precision@k: mean over a task's demands, then over tasks.", "",
        "| read by | A | B | C | D | others |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for method, groups in report.items():
        cells = [
            f"{groups[g]['auc']:.3f} / {groups[g]['precision']:.3f}" if g in groups else "–"
            for g in _GROUPS
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    if tuned := report.get("language-model"):
        shares = ", ".join(f"{g} {tuned[g]['itself']:.0%}" for g in _GROUPS if g in tuned)
        lines += ["", f"The language model itself read of the demands: {shares}. The catalogue's "
                      "rewriter, which stands behind it, read the others."]  # fmt: skip
    return "\n".join([*lines, ""])


def _measures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        "auc": metrics.auc(scores, labels), "precision": metrics.precision_at(scores, labels),
    }  # fmt: skip


def _summary(tasks: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    means = {
        name: metrics.mean(metrics.mean(row[name] for row in rows) for rows in tasks.values())
        for name in ("auc", "precision")
    }
    itself = metrics.mean(float(row["itself"]) for rows in tasks.values() for row in rows)
    return {"tasks": len(tasks), **means, "itself": itself, "each": tasks}


if __name__ == "__main__":
    main(RewritingStudy, run)
