"""What each part of the recipe is worth (FOUND Table 5): leave it out, train again, compare.

A variant is a name and some fields of the preset with other values. All variants share one
workspace below OUT, so data, features and samples are made once, and every stage that is
finished is reused: a killed run goes on. Nothing is published.

The way from the faithful recipe to ours is told the same way: each step is ours with the fields of
all later steps as the faithful preset has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from feature_repo.errors import InputError
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs import presets
from ray_jobs.build_features import Dataset, build, ingest
from ray_jobs.evaluation.subject import Subject
from ray_jobs.pipeline import train_and_embed
from ray_jobs.presets import OBJECTIVES, Preset
from ray_jobs.training_frames import Run, training_frames
from ray_jobs.workers import Workers

FULL = "full"


@dataclass(frozen=True)
class Variant:
    """A preset's fields with other values; ``behaviour.dropout`` reaches into a part."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    headline: bool = False  # trained in several seeds

    def of(self, preset: Preset) -> Preset:
        """The preset with the changes. Raises InputError for a field it does not have."""
        if not self.changes:
            return preset
        changed: dict[str, Any] = {}
        for path, value in self.changes.items():
            name, *rest = path.split(".")
            _check(preset, name, path)
            part = changed.get(name, getattr(preset, name))
            changed[name] = _changed(part, rest, value, path) if rest else value
        return replace(preset, name=f"{preset.name}: {self.name}", **changed)


VARIANTS = (
    Variant(FULL, headline=True),
    Variant("w/o user behavioural sequence", {"modalities": ("tabular", "search")}),
    Variant("w/o tabular", {"modalities": ("behaviour", "search")}),
    Variant("w/o search text", {"modalities": ("behaviour", "tabular")}),
    Variant("w/o attention-based fusion", {"fusion": "concatenation"}, headline=True),
    Variant("w/o hand-made aggregates", {"aggregates": False}, headline=True),
    Variant("w/o outlook", {"outlook": None}),
    Variant("w/o assortment", {"assortment": None}),
    Variant("w/o feedback of the past", {"feedback": None}),
    Variant("w/o forecast (eq. 6)", {"objectives": ("cycle", "mlm", "rtd", "search")}),
    Variant("w/o cyclic regularisation (eq. 7)", {"objectives": ("forecast", "mlm", "rtd",
                                                                 "search")}),
    Variant("w/o masked columns (eq. 9)", {"objectives": ("forecast", "cycle", "rtd", "search")}),
    Variant("w/o replaced columns (eq. 10)", {"objectives": ("forecast", "cycle", "mlm",
                                                             "search")}),
    Variant("w/o replaced tokens of search text (eq. 12)", {"objectives": ("forecast", "cycle",
                                                                           "mlm", "rtd")}),
    Variant("temperature of eq. 6 learnt from .07", {"behaviour.temperature": 0.07,
                                                     "behaviour.learn_temperature": True}),
    Variant("one stage instead of two", {"two_stage": False}, headline=True),
    Variant("text of the same period", {"text_period": "same"}, headline=True),
    Variant("one cut-off per user", {"num_cutoffs": 1}),
    Variant("cosine instead of inner product", {"similarity": "cosine", "assortment": None,
                                                "feedback": None, "outlook": None}),
    Variant("language model tuned in the last steps", {"tuned_steps": 24}),
)  # fmt: skip
"""Table 5 and beyond. A variant that equals ``full``, as by a modality that the data
lack, is left out. The headline rows are trained in several seeds."""

_STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("faithful", ()),
    ("+ a month ahead, half a year of cut-offs", ("horizon_days", "num_cutoffs")),
    ("+ sentences with one subject each", ("pairs", "symmetric", "learn_temperature",
                                           "num_sentences", "tuned_sentences", "fact_levels",
                                           "description_items")),
    ("+ inner product, overall behaviour", ("similarity", "objective", "outcome_weight")),
    ("+ half a year of past, in frozen sentence vectors", ("behaviour", "windows", "tabular",
                                                           "search", "text", "fusion_dim",
                                                           "fusion_start", "stages")),
    ("+ habits", ("habits",)),
    (FULL, ("outlook", "assortment", "feedback")),
)  # fmt: skip
"""What a step from ``laptop`` to ``best`` brings: fields that have the values of ``best`` from it
on."""


def steps() -> tuple[Variant, ...]:
    """From the faithful recipe to ours, as variants of ours; the last step is FULL."""
    faithful = presets.laptop()
    return tuple(
        Variant(name, {each: getattr(faithful, each) for _, later in _STEPS[n + 1 :]
                       for each in later})
        for n, (name, _) in enumerate(_STEPS[:-1])
    )  # fmt: skip


STEPS = steps()


@dataclass(frozen=True)
class Trainings:
    """Where variants are trained: one data set, one date, one workspace."""

    workspace: Workspace
    source: str
    demographics: bool
    as_of: datetime
    preset: Preset
    workers: int = 0

    def prepare(self, variants: Iterable[Variant]) -> None:
        """Make what variants share, before several of them are trained at the same time."""
        dataset = self._dataset()
        for each in variants:
            training_frames(self._run(dataset, each, seed=0))

    def subject(self, variant: Variant, seed: int) -> Subject:
        """The variant's snapshot, trained unless it is there."""
        dataset = self._dataset()
        snapshot = train_and_embed(self._run(dataset, variant, seed))
        return Subject(self.workspace, SnapshotStore(self.workspace).load(snapshot), dataset)

    def _dataset(self) -> Dataset:
        dataset = ingest(self.workspace, self.source, demographics=self.demographics)
        build(self.workspace, dataset, self.as_of)
        return dataset

    def _run(self, dataset: Dataset, variant: Variant, seed: int) -> Run:
        preset = variant.of(self.preset)
        return Run(self.workspace, dataset, self.as_of, preset, seed, Workers(self.workers))


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
        left_out = set(preset.objectives) - set(changed.objectives)
        if left_out and not {OBJECTIVES[name][0] for name in left_out} & there:
            continue  # objectives of a modality that the data lack
        chosen.append(variant)
    return chosen


def place(out: Path, section: str = "ablations") -> Workspace:
    """The workspace that the variants of one section of a report share."""
    return Workspace(out / section)


def _changed(whole: Any, path: list[str], value: Any, named: str) -> Any:
    name, *rest = path
    _check(whole, name, named)
    inner = value if not rest else _changed(getattr(whole, name), rest, value, named)
    return replace(whole, **{name: inner})


def _check(whole: Any, name: str, named: str) -> None:
    if not is_dataclass(whole) or name not in {each.name for each in fields(whole)}:
        raise InputError(f"variant: {named} is no field of {type(whole).__name__}")
