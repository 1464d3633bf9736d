"""The state a training run resumes from: weights, optimiser moments, the next step, time spent.

Written atomically as safetensors and JSON; nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from encoders.checkpoint import replace_directory, trained_state

_MOMENTS = ("exp_avg", "exp_avg_sq")


def save(
    directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, *,
    seconds: float = 0.0,
) -> None:  # fmt: skip
    """Replace the state in ``directory``.

    Args:
        step: the next one to do.
        seconds: what the steps so far took, in all runs.
    """
    temporary = directory.with_name(f"{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(trained_state(model), temporary / "model.safetensors")
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moments, steps = {}, {}
    for parameter, state in optimizer.state.items():
        name = names[id(parameter)]
        steps[name] = float(state["step"])
        moments.update({f"{name}|{m}": state[m].contiguous() for m in _MOMENTS})
    save_file(moments, temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(
        json.dumps({"step": step, "steps": steps, "seconds": seconds})
    )
    replace_directory(temporary, directory)


def load(directory: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what :func:`save` wrote into both; returns the next step, 0 if there is nothing."""
    if not (directory / "state.json").exists():
        return 0
    model.load_state_dict(load_file(directory / "model.safetensors"), strict=False)
    moments = load_file(directory / "optimizer.safetensors")
    state = json.loads((directory / "state.json").read_text())
    for name, parameter in model.named_parameters():
        if name in state["steps"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(state["steps"][name]),
                **{m: moments[f"{name}|{m}"].to(parameter.device) for m in _MOMENTS},
            }
    return int(state["step"])


def spent(directory: Path) -> float:
    """Seconds that the steps up to the saved one took, in all runs; 0 if there is nothing."""
    path = directory / "state.json"
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else 0.0
