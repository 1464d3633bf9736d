"""Presets: complete settings of model and training, as plain functions.

``laptop`` is FOUND at a size that two cores train in minutes. What departs from the paper's
letter, and why, is in docs/decisions/laptop-preset.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from encoders.behaviour import BehaviourConfig
from encoders.search import SearchConfig
from encoders.tabular import TabularConfig
from encoders.text import TextConfig
from feature_repo.errors import InputError


@dataclass(frozen=True)
class Training:
    """How one stage is trained. Batch sizes are over all workers together."""

    steps: int
    batch_size: int
    learning_rate: float = 4e-4  # A.1
    weight_decay: float = 0.01
    warmup_steps: int = 20
    report_every: int = 25


@dataclass(frozen=True)
class Preset:
    """Everything a pipeline needs besides data, date and seed."""

    name: str
    horizon_days: int
    num_cutoffs: int  # past cut-offs that alignment samples come from
    cutoff_step_days: int
    behaviour: BehaviourConfig
    tabular: TabularConfig
    search: SearchConfig
    text: TextConfig
    fusion_dim: int
    fusion_layers: int
    similarity: Literal["dot", "cosine"]
    max_facts: int  # the most frequent facts of the future that sentences are made of
    num_sentences: int  # per step, over all workers
    tuned_steps: int  # how many of the last alignment steps also tune the language model
    tuned_sentences: int  # per such step: each one costs a pass through the language model
    aggregates: bool = True
    stages: dict[str, Training] = field(default_factory=dict)


def laptop() -> Preset:
    """FOUND, compact: 26 weekly windows, MiniLM with LoRA, four stages in minutes on two cores."""
    dim = 256
    return Preset(
        name="laptop",
        horizon_days=28,
        num_cutoffs=16,
        cutoff_step_days=14,
        behaviour=BehaviourConfig(dim=dim, dropout=0.0),
        tabular=TabularConfig(dim=32, out_dim=dim, dropout=0.0),
        search=SearchConfig(out_dim=dim),
        text=TextConfig(dim=dim),
        fusion_dim=dim,
        fusion_layers=2,
        similarity="dot",
        max_facts=400,
        num_sentences=384,
        tuned_steps=10,
        tuned_sentences=48,
        stages={
            "behaviour": Training(steps=60, batch_size=96, learning_rate=1e-3),
            "tabular": Training(steps=60, batch_size=128, learning_rate=1e-3),
            "search": Training(steps=60, batch_size=64, learning_rate=1e-3),
            "alignment": Training(steps=250, batch_size=256, learning_rate=2e-3),
        },
    )


PRESETS: dict[str, Callable[[], Preset]] = {"laptop": laptop}


def preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise InputError(f"preset: expected one of {sorted(PRESETS)}, got {name!r}")
    return PRESETS[name]()


def untrained(chosen: Preset) -> Preset:
    """The same model with no training step at all: the control that shows what training adds."""
    stages = {name: replace(stage, steps=0) for name, stage in chosen.stages.items()}
    return replace(chosen, name=f"{chosen.name}-untrained", tuned_steps=0, stages=stages)
