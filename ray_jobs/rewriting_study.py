"""Does rewriting help? Written demands, ranked by the model with and without each rewriter.

    python -m ray_jobs.rewriting_study --workspace DIR --out DIR [--rewriter catalogue …]
    python -m ray_jobs.rewriting_study … --demands FILE       on other data than Complete Journey

Complete Journey's demands (``demands/complete_journey.json``) were written before anything was
measured and use no word of their category's name; ``ray_jobs.demand_file`` tells how to write
others. ``others`` are the categories outside the protocol: choose on those. Groups A, B, C and D
are the protocol's own: report on those. What is measured happens from the snapshot's ``as_of`` on;
of Complete Journey take one before the final cut-off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
from feature_repo.errors import InputError
from feature_repo.manifest import Manifest, check_space_dates
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import open_tables
from ray_jobs import metrics
from ray_jobs.build_features import read_dataset
from ray_jobs.command import Job, console, main
from ray_jobs.demand_file import check_headings, read_demands
from ray_jobs.evaluation.markdown import number
from ray_jobs.evaluation.results import plain
from ray_jobs.protocol import Protocol, Task

_GROUPS = ("A", "B", "C", "D", "others")
PLAIN = "category name"
"""The method that says the protocol's own sentence: what perfect rewriting would reach."""


class RewritingStudy(Job):
    """Measure rewriters on written demands."""

    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for rewriting.md and rewriting.json")
    rewriter: list[Choice] = Field(["none", "catalogue"], description="may repeat")
    demands: str | None = Field(
        None, description="JSON file of demands; default those written for the data's source"
    )


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
    own = None if settings.demands is None else Path(settings.demands).resolve()
    written = read_demands(dataset.source, own)
    con = open_tables(workspace.root / dataset.tables)
    check_headings(con, [*written["categories"], *written["others"]])
    protocol = Protocol(con, manifest.as_of, categories=tuple(written["categories"]))
    demands = list(written_demands(protocol, written))
    con.close()
    if not demands:
        raise InputError(
            f"demands: nothing that they ask for can be told after {manifest.as_of:%Y-%m-%d}; take "
            "a snapshot whose next four weeks are in the data"
        )
    report = plain(study(workspace, manifest, demands, settings.rewriter))
    out.mkdir(parents=True, exist_ok=True)
    durable.write(out / "rewriting.json", json.dumps(report, indent=2).encode())
    durable.write(out / "rewriting.md", to_markdown(report).encode())
    console.print(f"report: {out / 'rewriting.md'}")
    return report


def written_demands(
    protocol: Protocol, written: Mapping[str, Mapping[str, Sequence[str]]]
) -> Iterator[Demand]:
    """Every demand with each task it is an answer to, in the order of the protocol.

    What the data cannot tell, as spending without prices, is asked of nobody.
    """
    for task in protocol.tasks():
        texts = written["categories" if task.group in "AB" else "behaviours"]
        for text in texts.get(task.name, ()):
            yield Demand(text, task)
    for category, others in written["others"].items() if "A" not in protocol.left_out else ():
        task = protocol.purchase(category, group="others")
        for text in others:
            yield Demand(text, task)


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
            f"{number(groups[g]['auc'])} / {number(groups[g]['precision'])}" if g in groups else "–"
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
