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
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from encoders import checkpoint, templates
from encoders.alignment import FoundModel
from encoders.batch import Collate
from encoders.distributed import gather, gather_with_grad, world_size
from encoders.habits import HabitConfig
from encoders.history import History
from encoders.pairs import PairBatch
from encoders.text import LineEncoder, TextConfig
from feature_repo import schema

HERE = Path(__file__).parent
SENTENCES = 5  # per worker
OUTCOMES = {  # of the six users: yes, no or unknown
    ("coupon", 56): [True, False, None, None, True, False],
    ("nothing", 14): [None, True, False, True, None, False],
}


@dataclass
class Run:
    """What the two workers left behind."""

    objective: str
    directory: Path
    users: list[str]
    facts: list[dict[str, Any]]
    results: list[dict[str, Tensor]]
    gradients: list[dict[str, Tensor]]
    said: list[str]  # the sentences of worker 0, then those of worker 1


@pytest.fixture(scope="module", params=["infonce", "intents"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, world: Any,
    tiny_config: Callable,
    jolt: Callable, make_facts: Callable, facts_table: Callable, micros_of: Callable,
    info_of: Callable, tiny_bert: str,
) -> Run:  # fmt: skip
    """InfoNCE as in the paper; or intents, with outcomes asked and habits read."""
    directory = tmp_path_factory.mktemp("two-workers")
    users = world.users[:6]
    facts = make_facts(users, world.end, seed=3)
    for view in ("behaviour", "habits"):
        pq.write_table(world.table(view), directory / f"{view}.parquet")
    told = [
        {"user_id": user, "cutoff": world.end, "outcome": name, "horizon_days": days,
         "happened": happened}
        for (name, days), column in OUTCOMES.items()
        for user, happened in zip(users, column, strict=True)
        if happened is not None
    ]  # fmt: skip
    pq.write_table(
        pa.Table.from_pylist(told, schema=schema.OUTCOMES), directory / "outcomes.parquet"
    )
    pq.write_table(facts_table(facts), directory / "facts.parquet")
    cutoffs = [micros_of(world.end)] * len(users)
    samples = {"users": users, "cutoffs": cutoffs, "sentences": SENTENCES}
    (directory / "samples.json").write_text(json.dumps(samples))

    torch.manual_seed(0)
    with_habits: dict[str, Any] = {
        "objective": "intents",
        "temperature": 1.0,
        "text": TextConfig(
            model=tiny_bert, dim=16, projection="near_identity", rank=3, lora_rank=2, max_tokens=40
        ),
        # Dropout draws differently in each worker.
        "habits": HabitConfig(width=16, ways=2, hidden=4, rank=2, dropout=0.0, windows=3),
    }
    changes = with_habits if request.param == "intents" else {}
    config = tiny_config(tabular=None, search=None, **changes)
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
        request.param, directory, users, facts,
        results=[load_file(directory / f"results-{rank}.safetensors") for rank in range(2)],
        gradients=[load_file(directory / f"gradients-{rank}.safetensors") for rank in range(2)],
        said=[s for r in range(2) for s in json.loads((directory / f"said-{r}.json").read_text())],
    )  # fmt: skip


def test_gradients_of_two_workers_equal_one_process_on_the_whole_batch(
    run: Run, world: Any, micros_of: Callable
) -> None:
    model, _ = checkpoint.load(run.directory / "checkpoint")
    lines, habits = LineEncoder(run.directory), model.config.habits
    sentences = LineEncoder(run.directory, model=model.config.text.model)
    history = History(
        world.table("behaviour"), None, None, lines, world.table("habits"), sentences
    )  # fmt: skip
    collate = Collate(history, windows=4, habit_windows=habits.windows if habits else 0)
    rows = collate.history.rows(run.users, [micros_of(world.end)] * len(run.users))
    whole = PairBatch(
        collate(rows), model.text.tokenize(run.said), run.results[0]["label_BS"],
        run.results[0]["weight_S"],
    )  # fmt: skip
    loss, _ = model.loss(whole)
    loss.backward()
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert run.results[0]["loss"].item() == pytest.approx(loss.item(), rel=1e-6, abs=1e-6)
    assert run.gradients[0].keys() == run.gradients[1].keys() == expected.keys()
    parts = {"behaviour", "fusion", "text", "log_scale"}
    names = {"behaviour.up.weight", "log_scale"}
    if run.objective == "intents":
        parts |= {"habits", "base_rate", "fit_scale"}
        names |= {"text.project.into.weight", "habits.out_KrE", "habits.of_pair.weight",
                  "habits.overall.0.weight", "base_rate.weight", "fit_scale"}  # fmt: skip
    else:
        names |= {"text.project.linear.weight"}
    assert {name.split(".")[0] for name in expected} == parts
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert norm > 0.1
    for name, gradient in expected.items():
        # 1e-6 of the whole gradient's length, so that the test means the same at any scale.
        difference = (run.gradients[0][name] - gradient).abs().max()
        assert difference < 1e-6 * max(norm.item(), 1.0), name
    for name in names:
        assert expected[name].abs().max() > 1e-3, name


def test_both_workers_end_with_the_same_loss_labels_and_gradients(run: Run) -> None:
    first, second = run.results
    assert torch.equal(first["loss"], second["loss"])
    for name in ("label_BS", "weight_S"):
        assert torch.equal(first[name], second[name])
    for name, gradient in run.gradients[0].items():
        assert torch.equal(gradient, run.gradients[1][name])
    assert first["gathered"].tolist() == second["gathered"].tolist() == [0, 0, 1, 10]
    assert first["world"].item() == 2


def test_gathered_labels_are_what_the_words_say_across_workers(run: Run, fits: Callable) -> None:
    by_user = {user: [f for f in run.facts if f["user_id"] == user] for user in run.users}
    own = SENTENCES + (len(OUTCOMES) if run.objective == "intents" else 0)  # said by a worker
    assert len(run.said) == 2 * own
    columns, weights = [], []
    for number, said in enumerate(run.said):
        outcome = number % own - SENTENCES  # each worker's outcomes follow its facts
        if outcome < 0:
            columns.append([int(fits(said, by_user[user])) for user in run.users])
        else:
            (name, days), happened = list(OUTCOMES.items())[outcome]
            assert said in wordings(name, days)
            columns.append([-1 if each is None else int(each) for each in happened])
        weights.append(1.0 if outcome < 0 else 3.0)
    label_BS = run.results[0]["label_BS"]
    assert label_BS.T.tolist() == columns, run.said
    assert run.results[0]["weight_S"].tolist() == weights
    across = torch.cat([label_BS[:3, own : own + SENTENCES].flatten(),
                        label_BS[3:, :SENTENCES].flatten()])  # fmt: skip
    assert 3 < across.sum() < len(across) - 3  # users fit sentences that the other worker drew


def wordings(outcome: str, days: int) -> list[str]:
    return [
        templates.outcome_sentence(outcome, horizon_days=days, wording=n)
        for n in range(templates.num_outcome_wordings(outcome))
    ]


def test_one_process_gathers_nothing() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    assert world_size() == 1
    assert gather_with_grad(x) is x
    assert np.shares_memory(gather(x).detach().numpy(), x.detach().numpy())
