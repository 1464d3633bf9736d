"""Two workers must train as one: the permanent two-rank test of the alignment."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.batch import Collate, History
from encoders.distributed import gather, gather_with_grad, world_size
from encoders.pairs import PairBatch
from encoders.text import LineEncoder

HERE = Path(__file__).parent
SENTENCES = 5  # per worker


@dataclass
class Run:
    """What the two workers left behind."""

    directory: Path
    users: list[str]
    facts: list[dict[str, Any]]
    results: list[dict[str, Tensor]]
    gradients: list[dict[str, Tensor]]
    said: list[str]  # the sentences of worker 0, then those of worker 1


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, world: Any, tiny_config: Callable,
    jolt: Callable, make_facts: Callable, facts_table: Callable, micros_of: Callable,
    info_of: Callable,
) -> Run:  # fmt: skip
    directory = tmp_path_factory.mktemp("two-workers")
    users = world.users[:6]
    facts = make_facts(users, world.end, seed=3)
    pq.write_table(world.table("behaviour"), directory / "behaviour.parquet")
    pq.write_table(facts_table(facts), directory / "facts.parquet")
    cutoffs = [micros_of(world.end)] * len(users)
    samples = {"users": users, "cutoffs": cutoffs, "sentences": SENTENCES}
    (directory / "samples.json").write_text(json.dumps(samples))

    torch.manual_seed(0)
    config = tiny_config(tabular=None, search=None)
    model = FoundModel(config)
    jolt(model)  # LoRA's B is zero at first, which would hide the gradient of A
    checkpoint.save(directory / "checkpoint", model, info_of("alignment", config))
    lines = LineEncoder(directory)
    history = world.history()
    lines._known = {text: i for i, text in enumerate(history.line_texts)}
    lines._vectors = history.lines_VE
    lines.save()

    root = str(HERE.parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    workers = subprocess.run(
        [sys.executable, str(HERE / "two_workers.py"), str(directory)],
        env=environment,
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert workers.returncode == 0, workers.stderr
    return Run(
        directory, users, facts,
        results=[load_file(directory / f"results-{rank}.safetensors") for rank in range(2)],
        gradients=[load_file(directory / f"gradients-{rank}.safetensors") for rank in range(2)],
        said=[s for r in range(2) for s in json.loads((directory / f"said-{r}.json").read_text())],
    )  # fmt: skip


def test_gradients_of_two_workers_equal_one_process_on_the_whole_batch(
    run: Run, world: Any, micros_of: Callable
) -> None:
    model, _ = checkpoint.load(run.directory / "checkpoint")
    lines = LineEncoder(run.directory)
    collate = Collate(History(world.table("behaviour"), None, None, lines), windows=4)
    rows = collate.history.rows(run.users, [micros_of(world.end)] * len(run.users))
    whole = PairBatch(
        collate(rows), model.text.tokenize(run.said), run.results[0]["positive_BS"]
    )  # fmt: skip
    loss, _ = model.loss(whole)
    loss.backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert run.results[0]["loss"].item() == pytest.approx(loss.item(), abs=1e-6)
    assert run.gradients[0].keys() == run.gradients[1].keys() == expected.keys()
    assert {name.split(".")[0] for name in expected} == {
        "behaviour", "fusion", "text", "log_scale",
    }  # fmt: skip
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert norm > 0.1
    for name, gradient in expected.items():
        # 1e-6 of the whole gradient's length, so that the test means the same at any scale.
        difference = (run.gradients[0][name] - gradient).abs().max()
        assert difference < 1e-6 * max(norm.item(), 1.0), name
    for name in ("behaviour.up.weight", "text.project.linear.weight", "log_scale"):
        assert expected[name].abs().max() > 1e-3, name


def test_both_workers_end_with_the_same_loss_labels_and_gradients(run: Run) -> None:
    first, second = run.results
    assert torch.equal(first["loss"], second["loss"])
    assert torch.equal(first["positive_BS"], second["positive_BS"])
    for name, gradient in run.gradients[0].items():
        assert torch.equal(gradient, run.gradients[1][name])
    assert first["gathered"].tolist() == second["gathered"].tolist() == [0, 0, 1, 10]
    assert first["world"].item() == 2


def test_gathered_labels_are_what_the_words_say_across_workers(run: Run, fits: Callable) -> None:
    by_user = {user: [f for f in run.facts if f["user_id"] == user] for user in run.users}
    expected = [[fits(sentence, by_user[user]) for sentence in run.said] for user in run.users]
    positive_BS = run.results[0]["positive_BS"]
    assert positive_BS.tolist() == expected, run.said
    assert len(run.said) == 2 * SENTENCES
    across = torch.cat(
        [positive_BS[:3, SENTENCES:].flatten(), positive_BS[3:, :SENTENCES].flatten()]
    )
    assert 3 < across.sum() < len(across) - 3  # users fit sentences that the other worker drew


def test_one_process_gathers_nothing() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert world_size() == 1
    assert gather_with_grad(x) is x
    assert np.shares_memory(gather(x).detach().numpy(), x.detach().numpy())
