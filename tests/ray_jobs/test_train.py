"""The training loop in this process: stages, resuming, warm starts, settings, refusals."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from encoders import checkpoint
from encoders.checkpoint import CheckpointError
from feature_repo.errors import InputError, TimeError
from feature_repo.schema import CANONICAL
from ray_jobs import frames, loop, pipeline, presets, progress, train, workers
from ray_jobs.build_features import build
from ray_jobs.embed import embed
from ray_jobs.training_frames import training_frames
from ray_jobs.workers import Workers


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours may catch it."""


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def made(place: Any, record: dict[str, Any]) -> Path:
    return place.workspace.root / record["checkpoint"]


# --- stages


def test_every_stage_leaves_a_checkpoint_that_says_what_it_is(
    trained: Any, bench: ModuleType
) -> None:
    for stage in bench.STAGES:
        model, info = checkpoint.load(trained.checkpoint(stage), expect=stage)
        assert info.trained_as_of == bench.AS_OF.isoformat()
        assert (info.model, info.horizon_days, info.seed) == (stage, 14, 0)
        assert info.metrics and all(math.isfinite(value) for value in info.metrics.values())
        assert asdict(model.config) == asdict(type(model.config)(**info.config))
        lines = trained.progress(stage)
        assert [line["step"] for line in lines] == [2, 4, 6]
        assert {line["steps"] for line in lines} == {6} and lines[-1]["losses"] == info.metrics


def test_alignment_starts_from_the_pretrained_stages(trained: Any, copy: Any) -> None:
    for stage in ("behaviour", "tabular", "search"):
        own = copy.checkpoint(stage)
        record = copy.train("alignment", preset="still", from_=[str(own)])
        inside = str(own.relative_to(copy.workspace.root))
        origin = {"path": inside, "sha256": checkpoint.fingerprint(own)}
        assert record["started_from"] == {stage: origin}
        aligned = weights(made(copy, record))
        start = weights(trained.checkpoint(stage))
        part = {name: aligned[f"{stage}.{name}"] for name in start}
        assert differing(part, start) == []


def test_training_moves_every_part_of_the_model(trained: Any, copy: Any) -> None:
    still = copy.align(preset=presets.preset("still"))
    moved = differing(weights(still), weights(trained.checkpoint("alignment")))
    for part in ("behaviour.", "tabular.", "search.albert.", "fusion.", "text.project.", "lora_A",
                 "lora_B", "log_scale", "habits.", "base_rate.", "fit_scale"):  # fmt: skip
        assert [name for name in moved if part in name], part
    assert not [name for name in moved if "base_layer" in name]
    assert not [name for name in moved if "mlm_heads" in name or "generator" in name]


def test_the_seed_decides_and_nothing_else(trained: Any, copy: Any) -> None:
    copy.forget("tabular", "behaviour")
    for stage in ("tabular", "behaviour"):
        again = made(copy, copy.train(stage))
        assert differing(weights(again), weights(trained.checkpoint(stage))) == []
        assert checkpoint.fingerprint(again) == checkpoint.fingerprint(trained.checkpoint(stage))
    other = made(copy, copy.train("tabular", seed=1))
    assert differing(weights(other), weights(trained.checkpoint("tabular")))


def test_a_finished_stage_is_not_trained_again(
    copy: Any, monkeypatch: pytest.MonkeyPatch, bench: ModuleType
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "fit", never)
    for stage in bench.PRETRAINED:
        assert made(copy, copy.train(stage)) == copy.checkpoint(stage)
    with pytest.raises(AssertionError, match="trained again"):
        copy.train("tabular", aggregates=False)


def test_without_aggregates_the_tabular_stage_does_not_see_them(trained: Any, copy: Any) -> None:
    _, with_ = checkpoint.load(trained.checkpoint("tabular"))
    record = copy.train("tabular", preset="still", aggregates=False)
    _, without = checkpoint.load(made(copy, record))
    columns = {*without.config["vocabularies"], *without.config["scales"]}
    assert columns and not [name for name in columns if name.startswith("agg_")]
    assert columns < {*with_.config["vocabularies"], *with_.config["scales"]}


@pytest.mark.parametrize("later", [False, True], ids=["none at all", "all after the date"])
def test_searches_are_needed_to_train_on_them(
    later: bool, planted_place: Any, world: Any, bench: ModuleType
) -> None:
    tables = {name: getattr(world, name) for name in CANONICAL}
    after = pc.greater_equal(world.searches["known_at"], pa.scalar(bench.AS_OF))
    tables["searches"] = world.searches.filter(after) if later else world.searches.slice(0, 0)
    place = planted_place(tables)
    build(place.workspace, place.dataset, bench.AS_OF)
    with pytest.raises(InputError, match="stage: .*no searches before 2024-06-17"):
        place.train("search")
    directory = pipeline.align(place.shared(preset=presets.preset("still")))
    aligned, info = checkpoint.load(directory)
    assert aligned.search is None and info.config["search"] is None
    dates = [bench.AS_OF, bench.AS_OF + 2 * bench.WEEK]
    embed(place.workspace, place.dataset, directory, dates)
    assert place.matrix().any(1).all()


@pytest.mark.parametrize(("days", "warned"), [(7, False), (40, True)])
def test_a_date_long_after_the_last_row_is_warned_of(
    days: int, warned: bool, trained: Any, world: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    last = max(pc.max(t["known_at"]).as_py() for t in (world.events, world.searches))
    given = {"workspace": trained.root, "as_of": last + timedelta(days=days), "preset": "tiny"}
    done = {"tabular": {"checkpoint": "none"}}
    monkeypatch.setattr(train, "train_stages", lambda shared, wanted: done)
    monkeypatch.setattr(pipeline, "ingest", lambda place, source, demographics: trained.dataset)
    monkeypatch.setattr(pipeline, "train_and_embed", lambda shared: "s1")
    for name in ("build", "publish"):
        monkeypatch.setattr(pipeline, name, lambda *_, **__: None)
    for run in (
        lambda: train.run(train.Train(stage="tabular", **given)),
        lambda: pipeline.run(pipeline.Pipeline(source=trained.dataset.source, **given)),
    ):
        capsys.readouterr()
        run()
        told = " ".join(capsys.readouterr().out.split())
        assert (f"lies {days} days after the last row" in told) == warned
        assert ("users who did nothing" in told) == warned


# --- killed and resumed


@pytest.mark.parametrize("stage", ["tabular", "alignment"])
def test_a_killed_run_ends_bit_for_bit_like_an_uninterrupted_one(
    stage: str, trained: Any, copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.forget(stage)
    shutil.rmtree(copy.workspace.cache)
    shutil.copytree(copy.workspace.root / "cache-before-alignment", copy.workspace.cache)
    report = progress.report

    def killed(path: Path, stage: str, step: int, *more: Any) -> None:
        if step == 4:
            raise Killed
        report(path, stage, step, *more)

    def run() -> Path:
        return copy.align() if stage == "alignment" else made(copy, copy.train(stage))

    with monkeypatch.context() as patch:
        patch.setattr(progress, "report", killed)
        with pytest.raises(Killed):
            run()
    assert not list(copy.workspace.checkpoints.glob(f"{stage}-*"))
    (state,) = (copy.workspace.root / "runs").glob(f"{stage}-*/state/state.json")
    saved = json.loads(state.read_text())
    assert saved["seconds"] > 0
    state.write_text(json.dumps({**saved, "seconds": 1000.0}))
    directory = run()
    took = loop.times(state.parent.parent)
    assert took["seconds"] > took["step_seconds"] > 1000, "with those of the run that was killed"
    assert [line["step"] for line in copy.progress(stage)] == [2, 6]  # not again from the start
    assert directory.name == trained.checkpoint(stage).name
    assert differing(weights(directory), weights(trained.checkpoint(stage))) == []


# --- warm starts


@pytest.mark.parametrize("stage", ["behaviour", "tabular", "alignment"])
def test_a_warm_start_begins_with_the_weights_of_the_checkpoint(
    stage: str, trained: Any, copy: Any
) -> None:
    start = copy.checkpoint(stage)
    record = copy.train(stage, preset="still", from_=[str(start)])
    assert differing(weights(made(copy, record)), weights(start)) == []
    assert checkpoint.fingerprint(made(copy, record)) != checkpoint.fingerprint(start)


@pytest.mark.parametrize("stage", ["tabular", "alignment"])
def test_a_warm_start_weeks_later_keeps_the_meaning_of_the_columns(
    stage: str, copy: Any, bench: ModuleType
) -> None:
    """Retraining next month: new rows must not renumber the categories that weights belong to."""
    later = bench.AS_OF + 4 * bench.WEEK
    build(copy.workspace, copy.dataset, later)
    start = copy.checkpoint(stage)
    record = copy.train(stage, preset="still", from_=[str(start)], as_of=later)
    # Of an alignment, what comes after its steps is the later users': measured, not stepped.
    measured = ("assortment.scale", "feedback.", "outlook.")
    changed = differing(weights(made(copy, record)), weights(start))
    assert [name for name in changed if not name.startswith(measured)] == []
    for part in measured if stage == "alignment" else ():
        assert any(name.startswith(part) for name in changed)
    before, after = (checkpoint.read_info(each).config for each in (start, made(copy, record)))
    columns = [c if stage == "tabular" else c["tabular"] for c in (before, after)]
    assert columns[0]["vocabularies"] == columns[1]["vocabularies"]
    assert columns[0]["scales"] == columns[1]["scales"]


def test_weights_from_the_future_are_refused(copy: Any, bench: ModuleType) -> None:
    """What a checkpoint has seen cannot be unseen by an earlier ``as_of``."""
    earlier = bench.AS_OF - 2 * bench.WEEK
    build(copy.workspace, copy.dataset, earlier)
    with pytest.raises(TimeError, match="from.*2024-06-17"):
        copy.train("tabular", as_of=earlier, from_=[str(copy.checkpoint("tabular"))])


def test_a_checkpoint_that_the_stage_cannot_use_is_refused(copy: Any) -> None:
    with pytest.raises(InputError, match="from.*behaviour"):
        copy.train("tabular", from_=[str(copy.checkpoint("behaviour"))])


def test_a_missing_checkpoint_is_named(copy: Any, tmp_path: Path) -> None:
    with pytest.raises((InputError, CheckpointError), match="nowhere"):
        copy.train("tabular", from_=[str(tmp_path / "nowhere")])


# --- workers, devices, precision


class Recorded:
    """In the place of Ray's trainer."""

    def __init__(self, function: Any, **options: Any) -> None:
        self.function, self.options, self.fitted = function, options, False

    def fit(self) -> None:
        self.fitted = True


@pytest.mark.parametrize(("num", "use_gpu"), [(0, False), (3, False), (2, True)])
def test_workers_and_gpus_reach_ray(
    num: int, use_gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[Recorded] = []
    monkeypatch.setattr(
        workers, "TorchTrainer", lambda *a, **k: trainers.append(Recorded(*a, **k)) or trainers[-1]
    )
    ran: list[Any] = []
    for _ in range(2):
        workers.fit(
            ran.append, [{"x": 1}, {"x": 2}], Workers(num, use_gpu), name="tabular",
            directory=tmp_path / "runs",
        )  # fmt: skip
    first, second = trainers
    first.function(first.options["train_loop_config"])
    assert first.fitted and [config["x"] for config in ran[0]] == [1, 2]
    (lines,) = {config["progress"] for config in ran[0]}
    assert Path(lines).parent == tmp_path / "runs"
    asked, running = first.options["scaling_config"], first.options["run_config"]
    assert (asked.num_workers, asked.use_gpu) == (num, use_gpu)
    assert asked._resources_per_worker_not_none["CPU"] == 1
    assert asked._resources_per_worker_not_none.get("GPU", 0) == int(use_gpu)
    assert running.storage_path.startswith(str(tmp_path / "runs"))
    assert running.name != second.options["run_config"].name  # Ray resumes what it knows by name


def test_settings_of_the_command_reach_the_loop(copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(train, "fit", lambda *a, **k: calls.append(a))
    monkeypatch.setattr(train, "cluster", lambda workers: nullcontext())
    monkeypatch.setattr(train, "times", lambda place: {"seconds": 9.0, "step_seconds": 8.0})
    record = copy.train("tabular", workers=3, use_gpu=True, precision="bfloat16", seed=5)
    ((function, (config,), asked),) = calls
    assert function is loop.run_all and asked == Workers(3, True)
    assert (config["precision"], config["spec"].seed, config["spec"].stage) == (
        "bfloat16", 5, "tabular")  # fmt: skip
    assert config["spec"].preset.stages["tabular"].steps == 6
    assert (record["seconds"], record["step_seconds"], record["samples_seen"]) == (9, 8, 6 * 16)


@pytest.mark.parametrize("stage", ["behaviour", "tabular", "search", "alignment"])
def test_bfloat16_trains_in_this_process(
    stage: str, copy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    record = copy.train(stage, precision="bfloat16")
    assert made(copy, record) != copy.workspace.checkpoints
    info = checkpoint.read_info(made(copy, record))
    assert all(math.isfinite(value) for value in info.metrics.values())
    kept = weights(made(copy, record))
    assert {tensor.dtype for tensor in kept.values() if tensor.is_floating_point()} == {
        torch.float32
    }


def test_more_workers_than_the_cluster_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(workers.ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(InputError, match=r"workers: .*64 CPUs \(it has 2\).*fewer --workers"):
        with workers.cluster(Workers(64)):
            raise AssertionError("began")
    with pytest.raises(InputError, match=r"1 GPUs \(it has 0\)"):
        with workers.cluster(Workers(1, use_gpu=True)):
            raise AssertionError("began")
    with workers.cluster(Workers(2)):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_in_process_too(copy: Any) -> None:
    with pytest.raises(InputError, match="GPU"):
        copy.train("tabular", use_gpu=True, seed=3)


def test_the_texts_of_the_past_are_embedded_once_before_any_worker_starts(copy: Any) -> None:
    for name in ("cache", "stages", "training"):
        shutil.rmtree(copy.workspace.root / name)
    drawn = training_frames(copy.shared(preset=presets.preset("still")))
    (cached,) = copy.workspace.cache.glob("lines-*.parquet")
    texts = set(pq.read_table(cached)["text"].to_pylist())
    tables = frames.read(copy.workspace.root / drawn["outputs"][0])
    history, _ = frames.past(tables, copy.workspace.cache)
    assert history.line_texts and history.habit_sentences
    assert texts == {*history.line_texts, *history.habit_sentences}
