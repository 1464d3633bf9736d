"""Do explanations name what matters? Events that are named are deleted, beside other choices.

    python -m ray_jobs.explanation_study --workspace DIR --out DIR [--users 100]

For sampled users and demands, the five events that an explanation names are deleted from the
user's past, the past is encoded again, and the score's move is compared with deleting five random
events, the five latest, and the five whose words match the demand best.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.explain import Part, UserPast, decisive, explain, scored
from encoders.past import PastEncoder
from encoders.query import QueryEncoder
from encoders.text import LineEncoder
from feature_repo import durable
from feature_repo.manifest import Manifest
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs import retrieval
from ray_jobs.command import Job, console, main

DEMANDS = ("CAT FOOD", "YOGURT", "BEERS/ALES", "COFFEE", "DIAPERS & DISPOSABLES", "FROZEN PIZZA")
NUM = 5


class ExplanationStudy(Job):
    """Measure explanations by deletion."""

    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for explanations.json")
    users: int = Field(60, ge=1, description="how many are sampled")
    orders: int = Field(2, ge=2, description="permutations per explanation")
    among: int = Field(12, ge=NUM, description="events that the named ones are looked for among")
    seed: int = 0


def run(settings: ExplanationStudy) -> dict[str, Any]:
    """Measure, write the figures, return them."""
    workspace, out = settings.place, Path(settings.out).resolve()
    store = SnapshotStore(workspace)
    manifest = store.load(settings.snapshot) if settings.snapshot else store.live()
    directory = workspace.root / manifest.checkpoint("alignment").path
    encoder = QueryEncoder.open(directory)
    catalogue = checkpoint.read_catalogue(directory)
    assert catalogue is not None, "the study needs a checkpoint with a catalogue"
    parents = {s.name: s.parent for s in catalogue.items if s.parent}
    asked = {s.name: s.sentence(horizon_days=manifest.horizon_days) for s in catalogue.headings}
    demands = [name for name in DEMANDS if name in asked] or sorted(asked)[:6]
    model, _ = checkpoint.load(directory, expect="alignment")
    encode = partial(PastEncoder(cast(FoundModel, model), workspace.cache), joint_only=True)
    lines = LineEncoder(workspace.cache)
    rng = np.random.default_rng(settings.seed)
    rows: list[dict[str, Any]] = []
    for user, tables in _sampled(workspace, manifest, settings.users, rng):
        past = UserPast(tables, parents)
        events = [part for part in past.parts if part.week_end is not None]
        if len(events) < 2 * NUM:
            continue
        name = demands[len(rows) % len(demands)]
        query_D = encoder.encode([asked[name]])[0]
        started = perf_counter()
        found = explain(past, query_D, encode, orders=settings.orders, seed=settings.seed)
        named = decisive(past, found, query_D, encode, num=NUM, among=settings.among)
        seconds = perf_counter() - started
        chosen = _choices(named, events, asked[name], lines, rng)
        taken = [frozenset(parts) for parts in chosen.values()]
        scores = scored(past, [frozenset(), *taken], query_D, encode)
        moves = np.abs(scores[0] - scores[1:])
        rows.append({
            "user": user, "demand": name, "events": len(events), "seconds": seconds,
            "unexplained": found.unexplained,
            **dict(zip(chosen, map(float, moves), strict=True)),
        })  # fmt: skip
    report = {**_summary(rows), "each": rows}
    out.mkdir(parents=True, exist_ok=True)
    durable.write(out / "explanations.json", json.dumps(report, indent=2).encode())
    console.print({key: value for key, value in report.items() if key != "each"})
    return report


def _sampled(
    workspace: Workspace, manifest: Manifest, num: int, rng: np.random.Generator
) -> list[tuple[str, dict[str, Any]]]:
    users = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    chosen = sorted(rng.choice(users, min(num, len(users)), replace=False).tolist())
    ends = retrieval.window_grid(manifest.as_of, 52)
    views = retrieval.weekly_rows(workspace, chosen, ends)
    return [
        (user, {view: table.filter(pc.equal(table["user_id"], user))
                for view, table in views.items()})
        for user in chosen
    ]  # fmt: skip


def _choices(
    named: list[Part], events: list[Part], sentence: str, lines: LineEncoder,
    rng: np.random.Generator,
) -> dict[str, list[Part]]:  # fmt: skip
    latest = sorted(events, key=lambda part: (part.week_end, part.name), reverse=True)
    names = sorted({part.name for part in events})
    similar = lines.once([sentence, *(name.lower() for name in names)])
    match = dict(zip(names, similar[1:] @ similar[0], strict=True))
    best = sorted(latest, key=lambda part: -match[part.name])
    random = [events[k] for k in rng.choice(len(events), NUM, replace=False)]
    return {"named": named, "random": random, "latest": latest[:NUM], "matching": best[:NUM]}


def _summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = ("named", "random", "latest", "matching", "seconds", "events")
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    return {
        "users": len(rows), **means,
        **{f"beats_{other}": float(np.mean([row["named"] > row[other] for row in rows]))
           for other in ("random", "latest", "matching")},
        "demands": sorted({row["demand"] for row in rows}),
        "unexplained": float(np.max([row["unexplained"] for row in rows])),
    }  # fmt: skip


if __name__ == "__main__":
    main(ExplanationStudy, run)
