"""Train stages of a build; the loop itself is in ``loop.py``.

    python -m ray_jobs.train --stage tabular --as-of 2017-11-06 --preset best --workspace DIR
    python -m ray_jobs.train --stage alignment --from CHECKPOINT …        warm start

Stages: behaviour, tabular and search pre-train one modality each; alignment fuses them and meets
the text tower, starting from whichever of the three are there. shopper_bert stands alone. A killed
run resumes from its last report when the same command is given again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from encoders import checkpoint
from feature_repo.errors import InputError, TimeError
from feature_repo.manifest import CheckpointEntry
from feature_repo.settings import Workspace
from feature_repo.store import FeatureStore
from ray_jobs import objectives, retrieval, stages
from ray_jobs.build_features import read_dataset
from ray_jobs.command import Date, console, main, parse_date
from ray_jobs.loop import run_all, times
from ray_jobs.presets import Preset
from ray_jobs.recipe import Recipe
from ray_jobs.training_frames import Run, purchase_frames, training_frames, warn_of_silence
from ray_jobs.workers import Workers, cluster, fit


class Train(Recipe):
    """Train one stage."""

    stage: Literal["behaviour", "tabular", "search", "alignment", "shopper_bert"]
    as_of: Date = Field(description="train on what was known strictly before this date")
    from_: list[str] = Field([], alias="from", description="checkpoint to start from; may repeat")
    seed: int = 0
    workers: int = Field(0, ge=0, description="0 trains in this process, N on N Ray Train workers")
    use_gpu: bool = False
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass")


def run(settings: Train) -> dict[str, Any]:
    """Train the stage alone; returns its record (``checkpoint`` is relative to the workspace)."""
    chosen = settings.chosen
    shared = Run(
        settings.place, read_dataset(settings.place), settings.as_of, chosen,
        settings.seed, Workers(settings.workers, settings.use_gpu), settings.precision,
    )  # fmt: skip
    warn_of_silence(shared)
    paths = [Path(each).resolve() for each in settings.from_]
    start = {_checked(path, settings, chosen): str(path) for path in paths}
    with cluster(shared.workers):
        record = train_stages(shared, {settings.stage: start})[settings.stage]
    console.print(f"checkpoint: {shared.workspace.root / record['checkpoint']}")
    return record


def _checked(path: Path, settings: Train, chosen: Preset) -> str:
    """The stage whose weights are in a checkpoint that ``settings`` may start from."""
    info = checkpoint.read_info(path)
    if settings.stage not in (info.model, "alignment"):
        raise InputError(
            f"from: {path} holds a {info.model} checkpoint; {settings.stage} can only start from "
            f"a {settings.stage} one"
        )
    if parse_date(info.trained_as_of) > settings.as_of:
        raise TimeError(
            f"from: {path} was trained as of {info.trained_as_of[:10]} and has seen what comes "
            f"after {settings.as_of:%Y-%m-%d}; start from an earlier one"
        )
    if info.model == "alignment" and (tower := info.config["text"]["model"]) != chosen.text.model:
        raise InputError(
            f"from: the text tower of {path} is tuned on {tower}, expected {chosen.text.model}; "
            f"add --language-model {tower}, or leave out --from"
        )
    return info.model


def train_stages(shared: Run, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Train stages that do not need each other, on one set of workers.

    Args:
        wanted: stage → the checkpoints it starts from (stage → absolute path).

    Returns:
        stage → record with ``checkpoint`` relative to the workspace, and what it ``started_from``.
    """
    workspace = shared.workspace
    readers = {_reader(stage) for stage in wanted}
    read = {reader: reader(shared) for reader in readers}
    samples = {stage: read[_reader(stage)] for stage in wanted}
    if "search" in wanted and "search" not in samples["search"]["views"]:
        raise InputError(
            f"stage: this data set has no searches before {shared.as_of:%Y-%m-%d}, so there is no "
            "search to train on"
        )
    records, configs, origins = {}, {}, {}
    for stage, start in wanted.items():
        origins[stage] = _origins(workspace, start)
        inputs = _inputs(shared, samples[stage]["key"], stage, origins[stage])
        key, record = stages.lookup(workspace, f"train-{stage}", inputs)
        if record is not None:
            records[stage] = record
        else:
            configs[stage] = _config(shared, samples[stage]["outputs"][0], stage, start, key)
    if configs:
        fit(run_all, list(configs.values()), shared.workers, name="+".join(configs),
            directory=workspace.root / "runs")  # fmt: skip
        for stage, config in configs.items():
            target = str(Path(config["target"]).relative_to(workspace.root))
            settings = shared.preset.stages[stage]
            took = times(Path(config["directory"]))
            result = {"checkpoint": target, "outputs": [target], "started_from": origins[stage],
                      "samples_seen": settings.steps * settings.batch_size,
                      "step_seconds": round(took["step_seconds"], 3)}  # fmt: skip
            records[stage] = stages.record(
                workspace, f"train-{stage}", config["key"], result, took["seconds"]
            )
    return records


def _reader(stage: str) -> Callable[[Run], dict[str, Any]]:
    return purchase_frames if stage == "shopper_bert" else training_frames


def _origins(workspace: Workspace, start: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Stage → path and hash of the checkpoint that is started from."""
    found = {}
    for stage, path in start.items():
        sha256 = checkpoint.fingerprint(Path(path))
        found[stage] = CheckpointEntry.of(Path(path), sha256, root=workspace.root).model_dump()
    return found


def _inputs(
    shared: Run, samples: str, stage: str, origins: Mapping[str, Mapping[str, str]]
) -> list[Any]:
    started_from = {name: origin["sha256"] for name, origin in origins.items()}
    return [stage, samples, asdict(shared.preset), shared.seed, shared.workers.num,
            shared.precision, started_from]  # fmt: skip


def _config(
    shared: Run, frames: str, stage: str, start: Mapping[str, str], key: str
) -> dict[str, Any]:
    workspace, preset = shared.workspace, shared.preset
    directory = workspace.root / "runs" / f"{stage}-{key}"
    info = checkpoint.CheckpointInfo(
        model=stage, config={}, trained_as_of=shared.as_of.isoformat(),
        horizon_days=preset.horizon_days,
        feature_hash=FeatureStore(workspace).feature_hash(retrieval.views_of(stage)),
        seed=shared.seed, version=version("openfound"), metrics={},
    )  # fmt: skip
    spec = objectives.StageSpec(
        stage, str(workspace.root / frames), str(workspace.cache), preset, shared.seed, dict(start)
    )
    return {
        "spec": spec, "info": info, "key": key, "directory": str(directory),
        "target": str(workspace.checkpoints / f"{stage}-{key}"), "precision": shared.precision,
    }  # fmt: skip


if __name__ == "__main__":
    main(Train, run)
