"""How long one user and one sentence take, beside yardsticks that hold none of our code.

    python -m benchmarks.latency --workspace WORKSPACE [--users 30]

A user: raw events → weekly rows → batch → fused vector, nothing kept from before but the weights
and the vectors of known lines. Checked against the published vector of the same user. A sentence:
as it stands, and read by the catalogue as the service does. The yardsticks, measured in
turn with ours: an empty DuckDB connection, and one pass of the language model itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.past import collate_for, cut_history, encode_rows
from encoders.query import QueryEncoder
from encoders.rewriters import RewriterPlaces, maker
from encoders.text import LineEncoder
from feature_repo.habits import habits_weekly
from feature_repo.profiles import profile_weekly
from feature_repo.schema import CANONICAL
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import behaviour_weekly, micros, open_tables, search_weekly
from ray_jobs.build_features import read_dataset

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
    lines = LineEncoder(workspace.cache)
    raw = _raw(workspace.root / read_dataset(workspace).tables)
    listed = pq.read_table(workspace.root / manifest.users)["user_id"].to_pylist()
    rows = np.random.default_rng(0).choice(len(listed), given.users, replace=False)
    published = np.load(workspace.root / manifest.entry("fused").matrix, mmap_mode="r")

    def user(row: int) -> np.ndarray:
        return encode_user(raw, listed[row], manifest.as_of, model, lines)

    user(int(rows[0]))  # warm
    worst, ours, empty = 0.0, [], []
    for row in rows.tolist():
        ours.append(_seconds(lambda row=row: user(row)))
        empty.append(_seconds(lambda: duckdb.connect().sql("SELECT 1").fetchall()))
        worst = max(worst, float(np.abs(user(row) - published[row]).max()))
    _say("one user from raw events", ours, empty, "an empty DuckDB connection")
    print(f"  largest difference from the published vectors: {worst:.1e}")

    places = RewriterPlaces(workspace.cache, workspace.rewriter)
    read = QueryEncoder.open(directory, maker("catalogue", places))
    literal = QueryEncoder.open(directory)
    texts = [form.format(word) for form in SENTENCES for word in WORDS]
    read.understand("warm"), literal.understand("warm")
    tokens = [model.text.tokenize([text]) for text in texts]
    bare = []
    for each in tokens:
        with torch.inference_mode():
            bare.append(_seconds(lambda each=each: model.text.model(**each)))
    name = "one pass of the language model"
    _say("a sentence as it stands", [_seconds(lambda t=t: literal.understand(t)) for t in texts],
         bare, name)  # fmt: skip
    _say("a sentence read by the catalogue",
         [_seconds(lambda t=t: read.understand(t)) for t in texts], bare, name)  # fmt: skip


def encode_user(
    raw: dict[str, pa.Table], user: str, as_of: object, model: FoundModel, lines: LineEncoder
) -> np.ndarray:
    """The fused vector of one user from raw rows alone, float32 [D]."""
    con = open_tables(_only(raw, user))
    tables = {"behaviour_weekly": behaviour_weekly(con, as_of),
              "profile_weekly": profile_weekly(con, as_of),
              "habits_weekly": habits_weekly(con, as_of)}  # fmt: skip
    if raw["searches"].num_rows:
        tables["search_weekly"] = search_weekly(con, as_of)
    con.close()
    history = cut_history(tables, lines)
    row = history.rows([user], [micros(as_of)])
    return encode_rows(model, collate_for(model, history), row)["fused"][0]


def _raw(directory: Path) -> dict[str, pa.Table]:
    return {name: pq.read_table(directory / f"{name}.parquet") for name in CANONICAL}


def _only(raw: dict[str, pa.Table], user: str) -> dict[str, pa.Table]:
    """The rows of one user, and the items in them."""
    mine = {
        name: table.filter(pc.equal(table["user_id"], user))
        if "user_id" in table.column_names else table
        for name, table in raw.items()
    }  # fmt: skip
    bought = pc.is_in(raw["items"]["item_id"], value_set=mine["events"]["item_id"].unique())
    return {**mine, "items": raw["items"].filter(bought)}


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _say(what: str, ours: list[float], yardstick: list[float], name: str) -> None:
    mine, other = median(ours) * 1e3, median(yardstick) * 1e3
    print(f"{what}: {mine:.1f} ms (median of {len(ours)}), {name} {other:.1f} ms: "
          f"{mine / other:.1f} times that")  # fmt: skip


if __name__ == "__main__":
    main()
