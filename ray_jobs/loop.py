"""The one training loop: everything that has ``loss`` runs through it, in process or on Ray Train.

A worker imports this module and little else: no feature store, no DuckDB. Each step depends on
(seed, step, rank) only, so a run that was killed goes on from its last saved state to the same
weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn

from encoders import checkpoint
from feature_repo import durable
from ray_jobs import objectives, progress, training_state
from ray_jobs.precision import autocast
from ray_jobs.presets import Training

_MAX_GRADIENT = 1.0
_TIMES = "times.json"
_PRETRAINED = ("behaviour.", "tabular.", "search.", "fusion.", "text.model.")


def run_all(configs: Sequence[dict[str, Any]]) -> None:
    """Train several stages one after another on the same workers: starting workers is not free."""
    for config in configs:
        run_one(config)


def run_one(config: dict[str, Any]) -> None:
    """Train one stage on this worker, from its last saved state if there is one."""
    began = perf_counter()
    spec, directory = config["spec"], Path(config["directory"])
    settings = spec.preset.stages[spec.stage]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.use_deterministic_algorithms(True, warn_only=True)
    objective = config.get("build", objectives.build)(spec, world)
    device = get_device()
    objective.model.to(device)
    optimizer = torch.optim.AdamW(
        _groups(objective.model, settings),
        lr=settings.learning_rate, weight_decay=settings.weight_decay,
    )  # fmt: skip
    done = training_state.load(directory / "state", objective.model, optimizer)
    earlier = training_state.spent(directory / "state")
    model = prepare_model(
        _Loss(objective.model), parallel_strategy_kwargs={"find_unused_parameters": True}
    )  # fmt: skip
    model.train()
    parts: dict[str, float] = {}
    precision = settings.precision or config["precision"]
    stepping, spent = perf_counter(), earlier
    for step in range(done, settings.steps):
        objective.before_step(step)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * settings.learning_rate * _schedule(step, settings)
        torch.manual_seed(np.random.SeedSequence([spec.seed, step, rank]).generate_state(1)[0])
        batch = objective.batch(step, rank, settings.batch_size // world)
        with autocast(precision, device):
            total, named = model(_on(batch, device))
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(objective.model.parameters(), _MAX_GRADIENT)
        optimizer.step()
        if (step + 1) % settings.report_every == 0 or step + 1 == settings.steps:
            parts = {name: value.item() for name, value in named.items()}
            spent = earlier + perf_counter() - stepping
            if rank == 0:
                training_state.save(
                    directory / "state", objective.model, optimizer, step + 1, seconds=spent
                )
                progress.report(
                    Path(config["progress"]), spec.stage, step + 1, settings.steps, parts
                )
            ray.train.report({"step": step + 1, **parts})
    if rank == 0:
        _finish(objective, config, parts, context.get_local_world_size())
        took = {"seconds": earlier + perf_counter() - began, "step_seconds": spent}
        durable.write(directory / _TIMES, json.dumps(took).encode())


def times(directory: Path) -> dict[str, float]:
    """What the stage that was trained in ``directory`` took, over all runs of it.

    Returns:
        ``seconds`` of all its work on worker 0, and ``step_seconds`` of its training steps alone.
        The start of the workers, which stages share, is in neither.
    """
    found: dict[str, float] = json.loads((directory / _TIMES).read_bytes())
    return found


def _finish(
    objective: objectives.Objective, config: dict[str, Any], losses: dict[str, float], here: int
) -> None:
    """What worker 0 does once, after the last step. ``here`` workers ran on this machine."""
    threads = torch.get_num_threads()
    # This machine's other workers have done their part: their cores are free.
    torch.set_num_threads(threads * here)
    objective.finish()
    torch.set_num_threads(threads)
    info = replace(config["info"], config=asdict(objective.model.config), metrics=losses)
    checkpoint.save(Path(config["target"]), objective.model, info, objective.catalogue)


def _groups(model: nn.Module, settings: Training) -> list[dict[str, Any]]:
    """Trainable parameters, those of the pre-trained parts with their own share of the rate."""
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    slow = [each for name, each in named if name.startswith(_PRETRAINED)]
    fast = [each for name, each in named if not name.startswith(_PRETRAINED)]
    groups = [{"params": fast, "rate": 1.0}, {"params": slow, "rate": settings.encoder_rate}]
    return [group for group in groups if group["params"]]


class _Loss(nn.Module):
    """A model whose forward is its loss: what data parallelism wraps."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.loss(batch)


def _schedule(step: int, settings: Training) -> float:
    """Cosine decay to zero (5.1.4), after a linear warm-up that the paper does not name."""
    warm = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / max(settings.steps, 1)))


def _on(batch: Any, device: torch.device) -> Any:
    return batch if device.type == "cpu" else batch.to(device)
