"""Is a fused vector more than its parts? Linear probes of every kind of a snapshot, on any data.

    python -m benchmarks.fusion --workspace WORKSPACE [--days 28] [--splits 5]

FOUND (Table 4) claims that fusion by attention beats concatenation and every single modality. The
tasks are to buy something of a subject in the days after the snapshot's date, for the twenty most
bought subjects of the two coarsest levels that less than half of the users buy, and to come back
at all. Every kind is centred and divided by one number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

import duckdb
import numpy as np
import pyarrow.parquet as pq

from feature_repo.manifest import Manifest, check_space_dates
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import DAY_US, micros, open_tables
from ray_jobs.build_features import read_dataset
from ray_jobs.evaluation.probe_table import blocks
from ray_jobs.probes import probe
from ray_jobs.protocol import Task

_SUBJECTS = 20
_OFTEN = 0.5
_FEW = 60  # positives below which a probe has nothing to learn from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--snapshot", help="id; default the live one")
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--splits", type=int, default=5)
    given = parser.parse_args()
    workspace = Workspace(given.workspace)
    store = SnapshotStore(workspace)
    manifest = store.load(given.snapshot) if given.snapshot else store.live()
    check_space_dates(manifest.trained_as_of, [manifest.as_of])
    users = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    con = open_tables(workspace.root / read_dataset(workspace).tables)
    tasks = future(con, manifest, users, given.days)
    kinds = {kind: np.load(workspace.root / manifest.entry(kind).matrix) for kind in manifest.kinds}
    kinds["concatenation"] = blocks([v for kind, v in kinds.items() if kind != "fused"])
    about = "**Synthetic data.** " if manifest.synthetic else ""
    print(f"{about}{manifest.source}, {manifest.as_of:%Y-%m-%d}, {len(users):,} users, "
          f"{len(tasks)} tasks, {given.splits} splits\n")  # fmt: skip
    print("| vectors | width | mean AUC | over tasks ± |\n|---|---|---|---|")
    for kind, vectors in kinds.items():
        each = [probe(vectors, users, [task], splits=given.splits)["A"]["auc"] for task in tasks]
        print(f"| {kind} | {vectors.shape[1]} | {mean(each):.4f} | {stdev(each):.4f} |", flush=True)


def future(
    con: duckdb.DuckDBPyConnection, manifest: Manifest, users: list[str], days: int
) -> list[Task]:
    """What the users do in the days after a snapshot's date."""
    start = micros(manifest.as_of)
    rows = con.sql(
        """SELECT user_id, subject FROM (
               SELECT user_id, unnest(categories[:2]) AS subject FROM events JOIN items
               USING (item_id) WHERE source = 'bill'
                 AND epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end)
        GROUP BY ALL""",
        params={"start": start, "end": start + days * DAY_US},
    ).fetchall()
    bought: dict[str, set[str]] = {}
    for user, subject in rows:
        bought.setdefault(subject, set()).add(user)
    everyone = np.array(users, object)
    labels = {name: np.array([user in takers for user in users]) for name, takers in bought.items()}
    fit = {n: y for n, y in labels.items() if _FEW <= y.sum() < _OFTEN * len(users)}
    chosen = sorted(fit, key=lambda name: (-fit[name].sum(), name))[:_SUBJECTS]
    back = np.any(list(labels.values()), 0)
    tasks = [Task("A", name, None, everyone, fit[name]) for name in chosen]
    if _FEW <= back.sum() <= len(users) - _FEW:
        tasks.append(Task("A", "comes back", None, everyone, back))
    return tasks


if __name__ == "__main__":
    main()
