"""What a run resumes from: weights and optimiser, to the bit, whatever it was killed in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from ray_jobs import training_state


class Model(nn.Module):
    """Two layers, one frozen, one that no loss reaches, a buffer, and a tied pair of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.frozen, self.unused = nn.Linear(4, 4), nn.Linear(2, 2)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.second.weight
        self.frozen.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return self.tied(self.second(self.frozen(torch.tanh(self.first(x)))))


def new(seed: int = 0) -> tuple[Model, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = Model()
    trainable = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trainable, lr=0.1)


def steps(model: Model, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def same(a: nn.Module, b: nn.Module) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


def test_a_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = new()
    steps(*whole, 0, 10)
    first = new()
    steps(*first, 0, 4)
    training_state.save(tmp_path / "state", *first, 4)
    second = new(seed=99)  # other weights: all must come from the state
    assert training_state.load(tmp_path / "state", *second) == 4
    second[0].frozen.load_state_dict(whole[0].frozen.state_dict())
    assert same(first[0], second[0])
    steps(*second, 4, 10)
    assert same(whole[0], second[0])


def test_without_the_moments_it_would_not_be_the_same(tmp_path: Path) -> None:
    """That the test above can fail: weights alone are not enough."""
    whole, first = new(), new()
    steps(*whole, 0, 10)
    steps(*first, 0, 4)
    second = new()
    second[0].load_state_dict(first[0].state_dict())
    steps(*second, 4, 10)
    assert not same(whole[0], second[0])


def test_the_latest_state_counts(tmp_path: Path) -> None:
    run = new()
    for step in (2, 5):
        steps(*run, 0, 1)
        training_state.save(tmp_path / "state", *run, step, seconds=step / 2)
    assert training_state.spent(tmp_path / "state") == 2.5
    fresh = new(seed=1)
    assert training_state.load(tmp_path / "state", *fresh) == 5
    assert torch.equal(fresh[0].first.weight, run[0].first.weight)


def test_nothing_saved_is_step_zero(tmp_path: Path) -> None:
    model, optimizer = new()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert training_state.load(tmp_path / "state", model, optimizer) == 0
    assert all(torch.equal(before[n], tensor) for n, tensor in model.state_dict().items())
    assert not optimizer.state
    assert training_state.spent(tmp_path / "state") == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", ["save_file", "replace", "rmtree"])
def test_killed_while_saving_the_earlier_state_is_there(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each call that changes the disk: the run goes on from step 4, or from 8, never from 0."""
    run = new()
    steps(*run, 0, 4)
    training_state.save(tmp_path / "state", *run, 4)
    kept = {name: tensor.clone() for name, tensor in run[0].state_dict().items()}
    steps(*run, 4, 8)
    holder = {"save_file": training_state, "replace": os, "rmtree": training_state.shutil}[call]
    original = getattr(holder, call)
    times = 0
    while True:
        done = 0

        def until(*args: object, at: int = times, **options: object) -> object:
            nonlocal done
            if done == at:
                raise Killed
            done += 1
            return original(*args, **options)

        monkeypatch.setattr(holder, call, until)
        try:
            training_state.save(tmp_path / "state", *run, 8)
        except Killed:
            pass
        else:
            break  # no such call is left to be killed in
        finally:
            monkeypatch.setattr(holder, call, original)
        fresh = new(seed=1)
        assert training_state.load(tmp_path / "state", *fresh) in (4, 8), f"{call} number {times}"
        if training_state.load(tmp_path / "state", *fresh) == 4:
            assert torch.equal(fresh[0].first.weight, kept["first.weight"])
        times += 1
    assert times or call != "save_file"  # at least the files are written
    assert training_state.load(tmp_path / "state", *new(seed=1)) == 8


def test_nothing_is_pickled(tmp_path: Path) -> None:
    run = new()
    steps(*run, 0, 1)
    training_state.save(tmp_path / "state", *run, 1)
    names = {path.name for path in (tmp_path / "state").iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json"}
