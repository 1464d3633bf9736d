"""Tune a small language model to say demands in the words the user model was trained on.

    python -m ray_jobs.tune_rewriter --workspace DIR [--checkpoint ALIGNMENT]

Two stages through the one training loop: conversations about the catalogue of an alignment
checkpoint, then demand → answer pairs. Only LoRA matrices are trained and kept, in
``WORKSPACE/checkpoints/rewriter``, where ``python -m serving.app --rewriter language-model`` looks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from pydantic import Field

from encoders import checkpoint
from encoders.language_model import SMOLLM2
from encoders.rewriter_model import Dialogues, RewriterConfig, RewriterModel
from feature_repo.errors import InputError
from ray_jobs import stages
from ray_jobs.command import Job, console, main
from ray_jobs.embed import latest_checkpoint
from ray_jobs.loop import run_all
from ray_jobs.objectives import Objective
from ray_jobs.presets import Training
from ray_jobs.rewriter_data import Synthesis
from ray_jobs.workers import Workers, cluster, fit

DOMAIN, DEMANDS = "domain", "demands"


class TuneRewriter(Job):
    """Tune the rewriter."""

    checkpoint: str | None = Field(None, description="alignment checkpoint; default the latest")
    model: str = Field(SMOLLM2, description="language model: that name, or a local directory")
    domain_steps: int = Field(60, ge=1, description="steps on conversations about the catalogue")
    demand_steps: int = Field(200, ge=1, description="steps on demands and their answers")
    batch_size: int = Field(8, ge=1, description="dialogues per step, over all workers")
    seed: int = 0
    workers: int = Field(0, ge=0, description="0 trains in this process, N on N Ray Train workers")


@dataclass(frozen=True)
class RewriterPreset:
    """What the loop needs of a preset: how long each stage is trained."""

    config: RewriterConfig
    stages: dict[str, Training] = field(default_factory=dict)


@dataclass(frozen=True)
class RewriterSpec:
    """One stage's inputs. Paths are absolute."""

    stage: str
    alignment: str
    preset: RewriterPreset
    seed: int
    start: str | None = None


def run(settings: TuneRewriter) -> dict[str, Any]:
    """Both stages; returns the record of the second (``checkpoint`` is relative)."""
    workspace = settings.place
    alignment = Path(settings.checkpoint or latest_checkpoint(workspace)).resolve()
    info = checkpoint.read_info(alignment)
    if checkpoint.read_catalogue(alignment) is None:
        raise InputError(
            f"checkpoint: {alignment} holds no catalogue to tune on; train the alignment again"
        )
    preset = _preset(settings)
    inputs = [checkpoint.fingerprint(alignment), settings.model_dump(exclude={"workspace"})]
    # Not looked up: the rewriter in use has one place, which another tuning may have taken since.
    # A finished run with the same key goes through its saved states in seconds.
    key = stages.key_of("tune-rewriter", inputs, stages.code_version())
    started = perf_counter()
    info = replace(info, model="rewriter", config={}, seed=settings.seed, metrics={})
    first, last = workspace.checkpoints / f"rewriter-domain-{key}", workspace.rewriter
    specs = [
        (RewriterSpec(DOMAIN, str(alignment), preset, settings.seed), first),
        (RewriterSpec(DEMANDS, str(alignment), preset, settings.seed, str(first)), last),
    ]
    configs = [
        {
            "spec": spec, "build": build, "info": info, "precision": "float32",
            "directory": str(workspace.root / "runs" / f"rewriter-{spec.stage}-{key}"),
            "target": str(target),
        }
        for spec, target in specs
    ]  # fmt: skip
    workers = Workers(settings.workers)
    with cluster(workers):
        fit(run_all, configs, workers, name="rewriter", directory=workspace.root / "runs")
    target = str(last.relative_to(workspace.root))
    result = {"checkpoint": target, "outputs": [target]}
    console.print(f"rewriter: {last}")
    return stages.record(workspace, "tune-rewriter", key, result, perf_counter() - started)


def build(spec: RewriterSpec, world_size: int = 1) -> Objective:
    """The rewriter and the dialogues of its stage, as the loop wants them."""
    torch.manual_seed(spec.seed)
    catalogue = checkpoint.read_catalogue(Path(spec.alignment))
    assert catalogue is not None
    horizon = checkpoint.read_info(Path(spec.alignment)).horizon_days
    synthesis = Synthesis(catalogue, horizon_days=horizon)
    draw = synthesis.conversation if spec.stage == DOMAIN else synthesis.demand
    model = RewriterModel(spec.preset.config)
    if spec.start is not None:
        checkpoint.load_state(model, Path(spec.start))

    def batch(step: int, rank: int, size: int) -> Dialogues:
        rng = np.random.default_rng([spec.seed, step, rank])
        return model.dialogues([draw(rng) for _ in range(size)])

    return Objective(model, batch)


def _preset(settings: TuneRewriter) -> RewriterPreset:
    steps = {DOMAIN: settings.domain_steps, DEMANDS: settings.demand_steps}
    training = {
        stage: Training(
            steps=num, batch_size=settings.batch_size, learning_rate=1e-3, warmup_steps=10
        )
        for stage, num in steps.items()
    }
    return RewriterPreset(RewriterConfig(model=settings.model), training)


if __name__ == "__main__":
    main(TuneRewriter, run)
