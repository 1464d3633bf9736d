"""ShopperBERT and CoLES in one run: the same receipts, cores and seconds, then the same probe.

    python benchmarks/training.py --workspace DIR --as-of 2017-09-11 \\
        --peer-python .venv-peers/bin/python --out DIR [--epochs 15] [--threads 2]

pytorch-lifestream's CoLES (GRU, hidden 256; benchmarks/lifestream.py, in its own environment) runs
its epochs first. ShopperBERT then gets as many seconds: its speed is measured on a few steps, which
do not count, and its schedule is laid over the steps that fit. Neither time includes reading the
receipts, nor the frozen sentence vectors of the products, which are computed once per data set and
cached (their seconds are reported). Neither reads demographics; they are the labels of group E.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from encoders import checkpoint
from encoders.purchases import PurchaseCollate
from feature_repo import durable
from feature_repo.settings import Workspace
from feature_repo.sources import complete_journey
from feature_repo.transforms import open_tables
from ray_jobs import frames, objectives, presets
from ray_jobs.build_features import build, ingest
from ray_jobs.command import parse_date
from ray_jobs.probes import probe
from ray_jobs.protocol import Protocol, Task
from ray_jobs.space import encode_purchases
from ray_jobs.train import train_stages
from ray_jobs.training_frames import Run, purchase_frames
from ray_jobs.workers import Workers

STAGE = "shopper_bert"
_TRIED = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--as-of", type=parse_date, required=True)
    parser.add_argument("--peer-python", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default=STAGE)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    workspace = Workspace(given.workspace.resolve())
    dataset = ingest(workspace, "complete-journey", demographics=False)
    build(workspace, dataset, given.as_of)
    shared = Run(workspace, dataset, given.as_of, presets.preset(given.preset), 0, Workers())
    made = purchase_frames(shared)
    tables = workspace.root / dataset.tables

    peer = coles(given, tables)
    shared, tokens = fitted(shared, workspace.root / made["outputs"][0], peer["seconds"])
    record = train_stages(shared, {STAGE: {}})[STAGE]
    ours = embedded(shared, workspace.root / record["checkpoint"], made)

    tasks = Protocol(open_tables(tables), given.as_of, complete_journey.profiles()).tasks()
    rows = {
        "ShopperBERT": {**measured(*ours, tasks), "seconds": record["seconds"],
                        "rate": tokens / record["seconds"], "unit": "tokens/s"},
        "CoLES": {**measured(*peer["vectors"], tasks), "seconds": peer["seconds"],
                  "rate": peer["events"] / peer["seconds"], "unit": "events/s"},
    }  # fmt: skip
    result = {
        "as_of": f"{given.as_of:%Y-%m-%d}", "threads": given.threads, "rows": rows,
        "texts_seconds": made["seconds"], "steps": shared.preset.stages[STAGE].steps,
    }  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    durable.write(given.out / "training.json", json.dumps(result, indent=2).encode())
    durable.write(given.out / "training.md", markdown(rows).encode())
    print(markdown(rows))


def coles(given: argparse.Namespace, tables: Path) -> dict[str, Any]:
    """CoLES' vectors, and the seconds and events of its training."""
    out = given.out.resolve() / "peers"
    subprocess.run(
        [str(given.peer_python), str(Path(__file__).with_name("lifestream.py")), "--tables",
         str(tables), "--as-of", f"{given.as_of:%Y-%m-%d}", "--out", str(out), "--methods", "CoLES",
         "--epochs", str(given.epochs), "--threads", str(given.threads)],
        check=True,
    )  # fmt: skip
    table = pq.read_table(out / "CoLES_256.parquet")
    vectors = np.stack(table["embedding"].to_numpy(zero_copy_only=False))
    cost: dict[str, Any] = json.loads((out / "CoLES_256.json").read_bytes())
    return {**cost, "vectors": (vectors, table["user_id"].to_pylist())}


def fitted(shared: Run, directory: Path, seconds: float) -> tuple[Run, float]:
    """The same run with the steps that fit into ``seconds``, and the tokens these will read."""
    training = shared.preset.stages[STAGE]
    spec = objectives.StageSpec(
        STAGE, str(directory), str(shared.workspace.cache), shared.preset, shared.seed
    )
    started = perf_counter()
    objective = objectives.build(spec)
    ready = perf_counter() - started  # which its training will take again
    optimizer = torch.optim.AdamW(objective.model.parameters())
    objective.model.train()
    taken, tokens = [], []
    for step in range(_TRIED):
        started = perf_counter()
        batch = objective.batch(step, 0, training.batch_size)
        loss, _ = objective.model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        taken.append(perf_counter() - started)
        tokens.append(int(batch.filled_RT.sum()))
    steps = max(1, int((seconds - ready) / float(np.median(taken[1:]))))
    stages = {**shared.preset.stages, STAGE: replace(training, steps=steps)}
    return (
        replace(shared, preset=replace(shared.preset, stages=stages)),
        steps * float(np.mean(tokens)),
    )


def embedded(shared: Run, directory: Path, made: dict[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Vectors of the users with purchases, and who they are."""
    model, _ = checkpoint.load(directory, expect=STAGE)
    tables = frames.read(shared.workspace.root / made["outputs"][0])
    history = frames.purchases(tables, shared.workspace.cache)
    collate = PurchaseCollate(history, model.config.vocabularies)
    return encode_purchases(model, collate, history.user_ids), history.user_ids


def measured(vectors: np.ndarray, users: list[str], tasks: list[Task]) -> dict[str, float]:
    """Probe AUC by group of tasks, and their mean."""
    groups = {name: row["auc"] for name, row in probe(vectors, users, tasks).items()}
    return {**groups, "mean": float(np.mean([*groups.values()]))}


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """The table as text."""
    names = [name for name in next(iter(rows.values())) if name not in ("rate", "unit")]
    lines = [f"| | {' | '.join(names)} | speed |", "|---" * (len(names) + 2) + "|"]
    for title, row in rows.items():
        figures = [f"{row[name]:.3f}" if name != "seconds" else f"{row[name]:.0f}"
                   for name in names]  # fmt: skip
        lines.append(f"| {title} | {' | '.join(figures)} | {row['rate']:,.0f} {row['unit']} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
