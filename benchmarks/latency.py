"""How long one user and one sentence take, beside yardsticks that hold none of our code.

    python -m benchmarks.latency --workspace WORKSPACE [--users 30]

A user: the user's own raw rows → weekly rows → batch → fused vector; kept from before are the
weights, the catalogue, the vectors of known lines and the plans of the SQL. Checked against the
published vector of the same user. A sentence: as it stands, and read by the catalogue as the
service does. The yardsticks, measured in turn with ours: an empty DuckDB connection, and one pass
of the language model itself. Wall time, and what of it the process computed (all medians).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.query import QueryEncoder
from encoders.rewriters import RewriterPlaces, maker
from feature_repo.manifest import Manifest
from feature_repo.schema import CANONICAL
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs.build_features import read_dataset
from ray_jobs.encode import UserEncoder

SENTENCES = (
    "households that will buy {} next month", "people who are about to pick up {}",
    "shoppers looking for {} soon", "everybody who may need {} in the coming weeks",
)  # fmt: skip
WORDS = ("nappies", "lager", "kitty litter", "a birthday card", "sparkling wine", "sushi", "muesli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--users", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    workspace = Workspace(given.workspace)
    manifest = SnapshotStore(workspace).live()
    directory = workspace.root / manifest.checkpoints["alignment"].path
    model = cast(FoundModel, checkpoint.load(directory, expect="alignment")[0])
    _users(workspace, manifest, given.users)

    places = RewriterPlaces(workspace.cache, workspace.rewriter)
    read = QueryEncoder.open(directory, maker("catalogue", places))
    literal = QueryEncoder.open(directory)
    texts = [form.format(word) for form in SENTENCES for word in WORDS]
    read.understand("warm"), literal.understand("warm")
    tokens = [model.text.tokenize([text]) for text in texts]
    bare = []
    for each in tokens:
        with torch.inference_mode():
            bare.append(_timed(lambda each=each: model.text.model(**each)))
    name = "one pass of the language model"
    _say("a sentence as it stands", [_timed(lambda t=t: literal.understand(t)) for t in texts],
         bare, name)  # fmt: skip
    _say("a sentence read by the catalogue",
         [_timed(lambda t=t: read.understand(t)) for t in texts], bare, name)  # fmt: skip


def _users(workspace: Workspace, manifest: Manifest, num: int) -> None:
    """How long a user takes whose rows are at hand, and whether the vector is the published one."""
    encode = UserEncoder(workspace, manifest)
    raw = _raw(workspace.root / read_dataset(workspace).tables)
    listed = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    published = np.load(workspace.root / manifest.entry("fused").matrix, mmap_mode="r")
    rows = np.random.default_rng(0).choice(len(listed), num, replace=False)
    encode(_only(raw, listed[rows[0]]), manifest.as_of)  # plans the SQL
    worst, ours, empty = 0.0, [], []
    for row in rows.tolist():
        mine = _only(raw, listed[row])
        ours.append(_timed(lambda mine=mine: encode(mine, manifest.as_of)))
        empty.append(_timed(lambda: duckdb.connect().sql("SELECT 1").fetchall()))
        _, vectors = encode(mine, manifest.as_of)
        worst = max(worst, float(np.abs(vectors[0] - published[row]).max()))
    _say("one user from raw events", ours, empty, "an empty DuckDB connection")
    print(f"  largest difference from the published vectors: {worst:.1e}")


def _raw(directory: Path) -> dict[str, pa.Table]:
    """The raw rows by which a user is known."""
    return {
        name: pq.read_table(directory / f"{name}.parquet")
        for name, schema in CANONICAL.items()
        if "user_id" in schema.names
    }


def _only(raw: dict[str, pa.Table], user: str) -> dict[str, pa.Table]:
    """Those of one user, as a caller would send them."""
    return {
        name: table.filter(pc.equal(table["user_id"], user)).combine_chunks()
        for name, table in raw.items()
    }


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that went by, and those that the process computed."""
    wall, cpu = perf_counter(), process_time()
    work()
    return perf_counter() - wall, process_time() - cpu


def _say(
    what: str, ours: list[tuple[float, float]], yardstick: list[tuple[float, float]], name: str
) -> None:
    (wall, cpu), (other, _) = _medians(ours), _medians(yardstick)
    print(f"{what}: {wall:.1f} ms, {cpu:.1f} of them CPU (median of {len(ours)}), {name} "
          f"{other:.1f} ms: {wall / other:.1f} times that")  # fmt: skip


def _medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    """In milliseconds."""
    return median(wall for wall, _ in times) * 1e3, median(cpu for _, cpu in times) * 1e3


if __name__ == "__main__":
    main()
