"""Is a fused vector more than its parts? Linear probes of each of them, on any data.

    python -m benchmarks.fusion --workspace WORKSPACE [--days 28] [--splits 5]

FOUND (Table 4) claims that fusion by attention beats concatenation and every single modality. The
tasks are those of ``ray_jobs.evaluation.fusion.bought_next`` after the snapshot's date. Every kind
is centred and divided by one number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from feature_repo.manifest import check_space_dates
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs.build_features import read_dataset
from ray_jobs.evaluation.fusion import bought_next, kinds
from ray_jobs.evaluation.subject import Subject
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
    subject = Subject(workspace, manifest, read_dataset(workspace))
    users = subject.users
    tasks = bought_next(subject.con, manifest.as_of, users, given.days)
    about = "**Synthetic data.** " if manifest.synthetic else ""
    print(f"{about}{manifest.source}, {manifest.as_of:%Y-%m-%d}, {len(users):,} users, "
          f"{len(tasks)} tasks, {given.splits} splits\n")  # fmt: skip
    print("| vectors | width | mean AUC | over tasks ± |\n|---|---|---|---|")
    for kind, vectors in kinds(subject).items():
        each = [probe(vectors, users, [task], splits=given.splits)["A"]["auc"] for task in tasks]
        print(f"| {kind} | {vectors.shape[1]} | {mean(each):.4f} | {stdev(each):.4f} |", flush=True)


if __name__ == "__main__":
    main()
