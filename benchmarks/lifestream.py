"""CoLES and CPC of pytorch-lifestream on a workspace's receipts, for the probe table.

pytorch-lifestream pins older versions than ours, so it lives in an environment of its own:

    python3.11 -m venv .venv-peers && .venv-peers/bin/pip install torch==2.13.0 \\
        pytorch-lifestream==0.7.0
    .venv-peers/bin/python benchmarks/lifestream.py --tables WORKSPACE/tables/KEY \\
        --as-of 2017-09-11 --out PEERS
    python -m ray_jobs.evaluate … --peers PEERS

Reads receipts known strictly before the date, and nothing of this project's code. Writes
``PEERS/CoLES_256.parquet`` and ``PEERS/CPC_256.parquet`` (user_id, embedding), and how long
training took over how many events in a ``.json`` beside each. Made for the public interface of
version 0.7.0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

LENGTH, HIDDEN, BATCH = 365, 256, 64
EMBEDDED = {"department": 16, "category": 32, "kind": 48}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--as-of", type=datetime.fromisoformat, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=sorted(METHODS))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    users, sizes = sequences(given.tables, given.as_of)
    for name in given.methods:
        torch.manual_seed(0)
        vectors, cost = train(METHODS[name](sizes), users, given.epochs, name)
        write(given.out / f"{name}_256.parquet", [user["user_id"] for user in users], vectors)
        (given.out / f"{name}_256.json").write_text(json.dumps(cost))


def sequences(tables: Path, as_of: datetime) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One record per user (times, amounts, category codes), and the size of each vocabulary."""
    events = pq.read_table(tables / "events.parquet").to_pandas()
    items = pq.read_table(tables / "items.parquet", columns=["item_id", "categories"]).to_pandas()
    moment = pd.Timestamp(as_of, tz="UTC")
    known = events[["timestamp", "known_at"]].max(axis=1) < moment
    rows = events[known & (events["source"] == "bill")].merge(items, on="item_id")
    sizes = {}
    for level, name in enumerate(EMBEDDED):
        words = rows["categories"].map(lambda c, level=level: c[min(level, len(c) - 1)])
        codes, distinct = pd.factorize(words, sort=True)
        rows[name], sizes[name] = codes + 1, len(distinct) + 1  # 0 is padding
    rows["day"] = (rows["timestamp"] - pd.Timestamp("2017-01-01", tz="UTC")).dt.days
    rows["amount"] = np.log1p(rows["amount"].fillna(0.0).clip(lower=0))
    found = []
    for user, held in rows.sort_values(["user_id", "timestamp"]).groupby("user_id"):
        record: dict[str, Any] = {"user_id": user}
        for name, kind in [("day", np.int64), ("amount", np.float32),
                           *((n, np.int64) for n in EMBEDDED)]:  # fmt: skip
            key = "event_time" if name == "day" else name
            record[key] = torch.from_numpy(held[name].to_numpy(kind)[-3 * LENGTH :])
        found.append(record)
    return found, sizes


def encoder(sizes: dict[str, int]) -> Any:
    from ptls.nn import RnnSeqEncoder, TrxEncoder

    events = TrxEncoder(
        embeddings={name: {"in": sizes[name], "out": width} for name, width in EMBEDDED.items()},
        numeric_values={"amount": "identity"}, embeddings_noise=0.003,
    )  # fmt: skip
    return RnnSeqEncoder(trx_encoder=events, hidden_size=HIDDEN, type="gru")


def coles(sizes: dict[str, int]) -> tuple[Any, Any]:
    from ptls.frames.coles import ColesDataset, CoLESModule
    from ptls.frames.coles.split_strategy import SampleSlices

    module = CoLESModule(encoder(sizes), optimizer_partial=_adam, lr_scheduler_partial=_steps)
    splitter = SampleSlices(split_count=5, cnt_min=25, cnt_max=LENGTH)
    return module, partial(ColesDataset, splitter=splitter)


def cpc(sizes: dict[str, int]) -> tuple[Any, Any]:
    from ptls.frames.cpc import CpcDataset, CpcModule

    module = CpcModule(
        seq_encoder=encoder(sizes), optimizer_partial=_adam, lr_scheduler_partial=_steps,
        n_negatives=40, n_forward_steps=6,
    )  # fmt: skip
    return module, partial(CpcDataset, min_len=25, max_len=LENGTH)


METHODS = {"CoLES": coles, "CPC": cpc}

_adam = partial(torch.optim.Adam, lr=2e-3)
_steps = partial(torch.optim.lr_scheduler.StepLR, step_size=5, gamma=0.6)


def train(
    pair: tuple[Any, Any], users: list[dict[str, Any]], epochs: int, name: str
) -> tuple[np.ndarray, dict[str, float]]:  # fmt: skip
    """Vectors of all users, float32 [N, HIDDEN]; seconds of training and events it read."""
    import pytorch_lightning as pl
    from ptls.data_load.datasets import MemoryMapDataset, inference_data_loader
    from ptls.frames import PtlsDataModule

    module, dataset = pair
    data = PtlsDataModule(
        train_data=dataset(MemoryMapDataset(users)), train_batch_size=BATCH, train_num_workers=0
    )

    class Count(pl.Callback):
        events = 0

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Sequence[Any], index: int
        ) -> None:
            self.events += int(batch[0].seq_lens.sum())

    count = Count()
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[count],
                         enable_checkpointing=False)  # fmt: skip
    started = perf_counter()
    trainer.fit(module, data)
    cost = {"seconds": perf_counter() - started, "events": float(count.events)}
    last = [{k: v if k == "user_id" else v[-LENGTH:] for k, v in user.items()} for user in users]
    module.eval()
    module.seq_encoder.is_reduce_sequence = True  # CPC reads every state; a user is the last one
    pieces = []
    with torch.inference_mode():
        for batch in inference_data_loader(last, num_workers=0, batch_size=256):
            pieces.append(module.seq_encoder(batch).numpy())
    vectors: np.ndarray = np.concatenate(pieces)
    print(f"{name}: {vectors.shape}, {cost['events'] / cost['seconds']:,.0f} events/s")
    return vectors, cost


def write(path: Path, users: list[str], vectors: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    column = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.astype(np.float32).ravel()), vectors.shape[1]
    )
    pq.write_table(pa.table({"user_id": pa.array(users), "embedding": column}), path)


if __name__ == "__main__":
    main()
