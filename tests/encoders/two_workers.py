"""Two gloo workers: ``python two_workers.py DIRECTORY``. See test_distributed.py.

Each loads the model and the tables in the directory, draws its half of the pair batch, and leaves
its sentences, the gathered labels, and the gradients averaged over the workers, as DDP would.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.multiprocessing import start_processes

from encoders import checkpoint
from encoders.batch import Collate
from encoders.distributed import gather, world_size
from encoders.history import History
from encoders.pairs import FactTable, OutcomeTable, PairSampler
from encoders.text import LineEncoder

WORKERS = 2


def work(rank: int, directory: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/rendezvous", rank=rank, world_size=WORKERS
    )
    model, _ = checkpoint.load(directory / "checkpoint", expect="alignment")
    behaviour, habits, facts, outcomes = (
        pq.read_table(directory / f"{name}.parquet")
        for name in ("behaviour", "habits", "facts", "outcomes")
    )
    sentences = LineEncoder(directory, model=model.config.text.model)
    history = History(behaviour, None, None, LineEncoder(directory), habits, sentences)
    counted = model.config.habits
    collate = Collate(history, windows=4, habit_windows=counted.windows if counted else 0)
    samples = json.loads((directory / "samples.json").read_text())
    users, cutoffs = samples["users"], np.array(samples["cutoffs"])
    said: list[str] = []

    def tokenize(texts: list[str]) -> dict[str, torch.Tensor]:
        said[:] = texts
        return model.text.tokenize(texts)

    sampler = PairSampler(
        collate, FactTable(facts, users, cutoffs), collate.history.rows(users, cutoffs),
        tokenize, num_sentences=samples["sentences"], horizon_days=28,
        outcomes=OutcomeTable(outcomes, users, cutoffs) if counted else None, outcome_weight=3.0,
    )  # fmt: skip
    half = len(users) // WORKERS
    batch = sampler(np.arange(rank * half, (rank + 1) * half), np.random.default_rng(rank))
    loss, _ = model.loss(batch)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for gradient in gradients.values():
        dist.all_reduce(gradient)
        gradient /= WORKERS
    results = {"loss": loss.detach(), "label_BS": batch.label_BS, "weight_S": batch.weight_S}
    results["gathered"] = gather(torch.tensor([rank, 10 * rank]))
    results["world"] = torch.tensor(world_size())
    save_file(results, directory / f"results-{rank}.safetensors")
    save_file(gradients, directory / f"gradients-{rank}.safetensors")
    (directory / f"said-{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    # Forked after the imports, which take longer than the work; torch has done nothing yet.
    start_processes(work, (Path(sys.argv[1]),), WORKERS, start_method="fork")
