"""Tuning the rewriter through the one loop, with a tiny random language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from encoders import checkpoint
from encoders.catalogue import FILE
from encoders.rewriter_model import RewriterModel
from feature_repo.errors import InputError
from ray_jobs.tune_rewriter import TuneRewriter, run


def tune(copy: Any, model: str, **more: Any) -> dict[str, Any]:
    return run(
        TuneRewriter(
            workspace=copy.root, model=model, domain_steps=2, demand_steps=3, batch_size=2, **more
        )
    )


def test_both_stages_leave_a_small_rewriter(copy: Any, tiny_llama: str) -> None:
    record = tune(copy, tiny_llama)
    directory = copy.workspace.root / record["checkpoint"]
    assert directory == copy.workspace.rewriter
    info = checkpoint.read_info(directory)
    aligned = checkpoint.read_info(copy.checkpoint("alignment"))
    assert (info.model, info.horizon_days) == ("rewriter", aligned.horizon_days)
    assert info.trained_as_of == aligned.trained_as_of and info.metrics["answer"] > 0
    kept = load_file(directory / "model.safetensors")
    assert kept and all("lora_" in name for name in kept)

    (first,) = copy.workspace.checkpoints.glob("rewriter-domain-*")
    before = load_file(first / "model.safetensors")
    assert any((before[name] != kept[name]).any() for name in kept)  # went on from there
    model, _ = checkpoint.load(directory, expect="rewriter")
    assert isinstance(model, RewriterModel) and isinstance(model.answer("skis"), str)

    other = tune(copy, tiny_llama, seed=1)
    changed = load_file(directory / "model.safetensors")
    assert other["key"] != record["key"] and any((changed[n] != kept[n]).any() for n in kept)
    assert tune(copy, tiny_llama)["key"] == record["key"]  # takes the place back
    back = load_file(directory / "model.safetensors")
    assert all((back[name] == kept[name]).all() for name in kept)


def test_the_alignment_keeps_the_subjects_of_its_sentences(trained: Any) -> None:
    directory: Path = trained.checkpoint("alignment")
    catalogue = checkpoint.read_catalogue(directory)
    assert catalogue is not None and len(catalogue) > 50
    (record,) = (trained.workspace.root / "stages").glob("train-alignment-*.json")
    assert json.loads(record.read_text())["checkpoint"].endswith(directory.name)
    names = {subject.name for subject in catalogue.items}
    parents = {subject.parent for subject in catalogue.items if subject.level > 1}
    assert parents and parents <= names
    assert all(subject.count > 0 for subject in catalogue.subjects)
    assert {subject.kind for subject in catalogue.subjects} >= {"purchase", "search", "click"}


def test_without_a_catalogue_there_is_nothing_to_tune_on(copy: Any, tiny_llama: str) -> None:
    (copy.checkpoint("alignment") / FILE).unlink()
    with pytest.raises(InputError, match="holds no catalogue"):
        tune(copy, tiny_llama)
