"""Is a fused vector more than its parts? Linear probes of every kind of a snapshot, on any data.

    python -m benchmarks.fusion --workspace WORKSPACE [--days 28] [--splits 5]

FOUND (Table 4) claims that fusion by attention beats concatenation and every single modality. The
tasks are those of ``ray_jobs.evaluation.fusion.bought_next`` after the snapshot's date. Every kind
is centred and divided by one number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pyarrow.parquet as pq

from feature_repo.manifest import check_space_dates
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import open_tables
from ray_jobs.build_features import read_dataset
from ray_jobs.evaluation.fusion import bought_next
from ray_jobs.evaluation.probe_table import blocks
from ray_jobs.probes import probe


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
    tasks = bought_next(con, manifest.as_of, users, given.days)
    kinds = {kind: np.load(workspace.root / manifest.entry(kind).matrix) for kind in manifest.kinds}
    kinds["concatenation"] = blocks([v for kind, v in kinds.items() if kind != "fused"])
    about = "**Synthetic data.** " if manifest.synthetic else ""
    print(f"{about}{manifest.source}, {manifest.as_of:%Y-%m-%d}, {len(users):,} users, "
          f"{len(tasks)} tasks, {given.splits} splits\n")  # fmt: skip
    print("| vectors | width | mean AUC | over tasks ± |\n|---|---|---|---|")
    for kind, vectors in kinds.items():
        each = [probe(vectors, users, [task], splits=given.splits)["A"]["auc"] for task in tasks]
        print(f"| {kind} | {vectors.shape[1]} | {mean(each):.4f} | {stdev(each):.4f} |", flush=True)


if __name__ == "__main__":
    main()
