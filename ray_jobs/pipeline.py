"""The whole story, in order: data → features → encoders → embeddings → live snapshot.

    python -m ray_jobs.pipeline --source complete-journey --as-of 2017-11-06 --preset best \\
        --workspace DIR [--no-demographics] [--workers 2] [--seed 0]

Finished stages are reused; a killed run goes on where it stopped when started again.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from pydantic import Field

from ray_jobs import presets
from ray_jobs.build_features import build, ingest
from ray_jobs.command import Date, console, main
from ray_jobs.embed import embed
from ray_jobs.publish import publish
from ray_jobs.recipe import Recipe
from ray_jobs.train import train_stages
from ray_jobs.training_frames import Run, training_frames, warn_of_silence
from ray_jobs.workers import Workers, cluster


class Pipeline(Recipe):
    """Build and publish a snapshot from raw data."""

    source: str = Field("complete-journey", description="complete-journey | synthetic:users=N,"
                        "seed=N | files:mapping.yaml")  # fmt: skip
    as_of: Date = Field(description="everything known strictly before this date may be used")
    demographics: bool = Field(True, description="use the source's own profile columns")
    train: bool = Field(True, description="--no-train publishes random weights, as a control")
    workers: int = Field(0, ge=0, description="0 trains in this process, N on N Ray Train workers")
    use_gpu: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    keep: int = Field(5, ge=1, description="how many snapshots to keep")


def run(settings: Pipeline) -> dict[str, Any]:
    """Everything, in order. Returns the id of the snapshot that is live at the end."""
    started = perf_counter()
    chosen = settings.chosen
    if not settings.train:
        chosen = presets.untrained(chosen)
    workspace = settings.place

    dataset = ingest(workspace, settings.source, demographics=settings.demographics)
    build(workspace, dataset, settings.as_of)

    shared = Run(
        workspace, dataset, settings.as_of, chosen, settings.seed,
        Workers(settings.workers, settings.use_gpu), settings.precision,
    )  # fmt: skip
    warn_of_silence(shared)
    snapshot = train_and_embed(shared)
    publish(workspace, snapshot, keep=settings.keep)
    console.print(f"[bold green]published[/] {snapshot} in "
                  f"{perf_counter() - started:.0f} s → {workspace.root}")  # fmt: skip
    return {"snapshot": snapshot}


def train_and_embed(shared: Run) -> str:
    """Every stage of the preset, then the embeddings at ``as_of``; the snapshot's id."""
    trained: list[Path] = []
    with cluster(shared.workers):
        if "alignment" in shared.preset.embeds:
            trained.append(align(shared))
        if "shopper_bert" in shared.preset.embeds:
            records = train_stages(shared, {"shopper_bert": {}})
            trained.append(shared.workspace.root / records["shopper_bert"]["checkpoint"])
    first, *beside = trained
    embedded = embed(shared.workspace, shared.dataset, first, [shared.as_of], beside)
    return str(embedded["snapshot"])


def align(shared: Run) -> Path:
    """FOUND's two stages: modality encoders, then alignment from them; its checkpoint."""
    root = shared.workspace.root
    searches = "search" in training_frames(shared)["views"]
    first = [stage for stage in shared.preset.pretrained() if stage != "search" or searches]
    records = train_stages(shared, {stage: {} for stage in first})
    start = {stage: str(root / records[stage]["checkpoint"]) for stage in first}
    aligned = train_stages(shared, {"alignment": start})["alignment"]
    checkpoint: Path = root / aligned["checkpoint"]
    return checkpoint


if __name__ == "__main__":
    main(Pipeline, run)
