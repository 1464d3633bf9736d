"""What each part of the recipe is worth (FOUND Table 5): leave it out, train again, compare.

A variant is a name and some fields of the preset with other values. All variants share one
workspace below OUT, so data, features and line vectors are made once, and every stage that is
finished is reused: a killed run goes on. Nothing is published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from feature_repo.errors import InputError
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs.build_features import build, ingest
from ray_jobs.command import console
from ray_jobs.evaluation.subject import Subject
from ray_jobs.pipeline import train_and_embed
from ray_jobs.presets import Preset
from ray_jobs.training_frames import Run
from ray_jobs.workers import Workers

FULL = "full"


@dataclass(frozen=True)
class Variant:
    """A preset's fields with other values; ``behaviour.dropout`` reaches into a part."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)

    def of(self, preset: Preset) -> Preset:
        """The preset with the changes. Raises InputError for a field it does not have."""
        for path, value in self.changes.items():
            preset = _changed(preset, path.split("."), value, path)
        return replace(preset, name=f"{preset.name}: {self.name}") if self.changes else preset


VARIANTS = (
    Variant(FULL),
    Variant("w/o user behavioural sequence", {"modalities": ("tabular", "search")}),
    Variant("w/o tabular", {"modalities": ("behaviour", "search")}),
    Variant("w/o search text", {"modalities": ("behaviour", "tabular")}),
    Variant("w/o attention-based fusion", {"fusion": "concatenation"}),
    Variant("w/o hand-made aggregates", {"aggregates": False}),
    Variant("w/o assortment", {"assortment": None}),
    Variant("w/o feedback of the past", {"feedback": None}),
    Variant("w/o forecast (eq. 6)", {"objectives": ("cycle", "mlm", "rtd", "search")}),
    Variant("w/o cyclic regularisation (eq. 7)", {"objectives": ("forecast", "mlm", "rtd",
                                                                 "search")}),
    Variant("w/o masked columns (eq. 9)", {"objectives": ("forecast", "cycle", "rtd", "search")}),
    Variant("w/o replaced columns (eq. 10)", {"objectives": ("forecast", "cycle", "mlm",
                                                             "search")}),
    Variant("one stage instead of two", {"two_stage": False}),
    Variant("text of the same period", {"text_period": "same"}),
    Variant("one cut-off per user", {"num_cutoffs": 1}),
    Variant("cosine instead of inner product", {"similarity": "cosine", "assortment": None,
                                                "feedback": None}),
    Variant("language model tuned in the last steps", {"tuned_steps": 24}),
)  # fmt: skip
"""Table 5 and beyond. A variant that equals ``full``, as by a modality that the data
lack, is left out."""


@dataclass(frozen=True)
class Bench:
    """Where variants are trained: one data set, one date, one workspace."""

    workspace: Workspace
    source: str
    demographics: bool
    as_of: datetime
    preset: Preset
    workers: int = 0

    def subject(self, variant: Variant, seed: int) -> Subject:
        """The variant's snapshot, trained unless it is there."""
        dataset = ingest(self.workspace, self.source, demographics=self.demographics)
        build(self.workspace, dataset, self.as_of)
        preset = variant.of(self.preset)
        shared = Run(self.workspace, dataset, self.as_of, preset, seed, Workers(self.workers))
        snapshot = train_and_embed(shared)
        return Subject(self.workspace, SnapshotStore(self.workspace).load(snapshot), dataset)


def applicable(
    variants: tuple[Variant, ...], preset: Preset, kinds: set[str]
) -> list[Variant]:  # fmt: skip
    """Variants that differ from the full recipe on data with these kinds of embeddings."""
    known = {each.name for each in fields(preset)}
    chosen = []
    for variant in variants:
        if missing := {path.split(".")[0] for path in variant.changes} - known:
            raise InputError(
                f"variant {variant.name!r}: the preset has no field {sorted(missing)}; it has "
                f"{sorted(known)}"
            )
        changed = variant.of(preset)
        if variant.changes and replace(changed, name=preset.name) == preset:
            continue
        modalities = variant.changes.get("modalities")
        there = set(preset.modalities) & kinds
        if modalities is not None and (set(modalities) & kinds) in (there, set()):
            continue
        chosen.append(variant)
    return chosen


def run(
    bench: Bench,
    variants: list[Variant],
    seeds: int,
    measure: Callable[[Subject], dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Variant → what ``measure`` says of its snapshot, once per seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, variant in enumerate(variants, 1):
        for seed in range(seeds):
            console.print(f"[bold]{number}/{len(variants)}[/] {variant.name}, seed {seed}")
            found.setdefault(variant.name, []).append(measure(bench.subject(variant, seed)))
    return found


def place(out: Path) -> Workspace:
    """The workspace that the variants of one report share."""
    return Workspace(out / "ablations")


def _changed(whole: Any, path: list[str], value: Any, named: str) -> Any:
    name, *rest = path
    if not is_dataclass(whole) or name not in {each.name for each in fields(whole)}:
        raise InputError(f"variant: {named} is no field of {type(whole).__name__}")
    inner = value if not rest else _changed(getattr(whole, name), rest, value, named)
    return replace(whole, **{name: inner})  # type: ignore[type-var]
