"""The one training loop, for everything that has ``forward`` and ``loss``.

    python -m ray_jobs.train --stage tabular --as-of 2017-11-06 --preset laptop --workspace DIR
    python -m ray_jobs.train --stage alignment --from CHECKPOINT …        warm start

Stages: behaviour, tabular and search pre-train one modality each; alignment fuses them and meets
the text tower, starting from whichever of the three are there. A killed run resumes from its last
report when the same command is given again.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray.train
import torch
from pydantic import Field
from ray.train.torch import get_device, prepare_model
from torch import Tensor, nn

from encoders import checkpoint
from feature_repo.errors import InputError
from feature_repo.store import FeatureStore
from ray_jobs import objectives, presets, progress, training_state
from ray_jobs.build_features import read_dataset
from ray_jobs.command import Date, Job, console, main
from ray_jobs.stages import run_stage
from ray_jobs.training_frames import Run, training_frames
from ray_jobs.workers import Workers, cluster, fit

STAGES = ("behaviour", "tabular", "search", "alignment")
_MAX_GRADIENT = 1.0


class Train(Job):
    """Train one stage."""

    stage: Literal["behaviour", "tabular", "search", "alignment"]
    as_of: Date = Field(description="train on what was known strictly before this date")
    preset: str = Field("laptop", description="|".join(presets.PRESETS))
    from_: str | None = Field(None, alias="from", description="checkpoint to start from")
    aggregates: bool = Field(True, description="let the tabular stage see hand-made aggregates")
    seed: int = 0
    workers: int = Field(0, description="0 trains in this process, N on N Ray Train workers")
    use_gpu: bool = False
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass")


def run(settings: Train) -> dict[str, Any]:
    """Train the stage alone; returns its record (``checkpoint`` is relative to the workspace)."""
    shared = Run(
        settings.place, read_dataset(settings.place), settings.as_of,
        replace(presets.preset(settings.preset), aggregates=settings.aggregates),
        settings.seed, Workers(settings.workers, settings.use_gpu), settings.precision,
    )  # fmt: skip
    start = {}
    if settings.from_ is not None:
        path = Path(settings.from_).resolve()
        start[checkpoint.read_info(path).model] = str(path)
    with cluster(shared.workers):
        record = train_stage(shared, settings.stage, start)
    console.print(f"checkpoint: {shared.workspace.root / record['checkpoint']}")
    return record


def train_stage(shared: Run, stage: str, start: dict[str, str]) -> dict[str, Any]:
    """Train ``stage`` from the ``start`` checkpoints (stage → absolute path)."""
    workspace, preset = shared.workspace, shared.preset
    samples = training_frames(shared)
    if stage == "search" and "search" not in samples["views"]:
        raise InputError("stage: this data set has no searches, so there is no search to train on")
    started_from = {name: checkpoint.fingerprint(Path(path)) for name, path in start.items()}
    inputs = [
        stage, samples["key"], asdict(preset), shared.seed, shared.workers.num, shared.precision,
        started_from,
    ]  # fmt: skip

    def work(key: str) -> dict[str, Any]:
        directory = workspace.root / "runs" / f"{stage}-{key}"
        target = workspace.checkpoints / f"{stage}-{key}"
        info = checkpoint.CheckpointInfo(
            model=stage, config={}, trained_as_of=shared.as_of.isoformat(),
            horizon_days=preset.horizon_days,
            feature_hash=FeatureStore(workspace).feature_hash(), seed=shared.seed,
            version=version("openfound"), metrics={},
        )  # fmt: skip
        spec = objectives.StageSpec(
            stage, str(workspace.root / samples["outputs"][0]), str(workspace.cache), preset,
            shared.seed, start,
        )  # fmt: skip
        config = {
            "spec": spec, "info": info, "directory": str(directory), "target": str(target),
            "precision": shared.precision,
        }  # fmt: skip
        fit(
            loop, config, shared.workers, name=stage, directory=directory,
            steps=preset.stages[stage].steps,
        )  # fmt: skip
        relative = str(target.relative_to(workspace.root))
        return {"checkpoint": relative, "outputs": [relative]}

    return run_stage(workspace, f"train-{stage}", inputs, work)


def loop(config: dict[str, Any]) -> None:
    """The training loop of one worker (top level, so that Ray can ship it)."""
    spec, directory = config["spec"], Path(config["directory"])
    settings = spec.preset.stages[spec.stage]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.use_deterministic_algorithms(True, warn_only=True)
    objective = objectives.build(spec, world)
    device = get_device()
    objective.model.to(device)
    optimizer = torch.optim.AdamW(
        [p for p in objective.model.parameters() if p.requires_grad],
        lr=settings.learning_rate, weight_decay=settings.weight_decay,
    )  # fmt: skip
    done = training_state.load(directory / "state", objective.model, optimizer)
    model = prepare_model(
        _Loss(objective.model), parallel_strategy_kwargs={"find_unused_parameters": True}
    )  # fmt: skip
    model.train()
    parts: dict[str, float] = {}
    for step in range(done, settings.steps):
        objective.before_step(step)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        torch.manual_seed(np.random.SeedSequence([spec.seed, step, rank]).generate_state(1)[0])
        batch = objective.batch(step, rank, settings.batch_size // world)
        with _autocast(config["precision"], device):
            total, named = model(_on(batch, device))
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(objective.model.parameters(), _MAX_GRADIENT)
        optimizer.step()
        if (step + 1) % settings.report_every == 0 or step + 1 == settings.steps:
            parts = {name: value.item() for name, value in named.items()}
            if rank == 0:
                training_state.save(directory / "state", objective.model, optimizer, step + 1)
                progress.report(directory / "progress.jsonl", step + 1, parts)
            ray.train.report({"step": step + 1, **parts})
    if rank == 0:
        objective.finish()
        info = replace(config["info"], config=asdict(objective.model.config), metrics=parts)
        checkpoint.save(Path(config["target"]), objective.model, info)


class _Loss(nn.Module):
    """A model whose forward is its loss: what data parallelism wraps."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.model.loss(batch)


def _schedule(step: int, settings: presets.Training) -> float:
    """Linear warm-up, then cosine decay to zero (A.1)."""
    warm = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return warm * 0.5 * (1 + math.cos(math.pi * step / max(settings.steps, 1)))


def _autocast(precision: str, device: torch.device) -> Any:
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _on(batch: Any, device: torch.device) -> Any:
    return batch if device.type == "cpu" else batch.to(device)


if __name__ == "__main__":
    main(Train, run)
