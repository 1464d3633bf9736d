"""Presets: complete settings of model and training, as plain functions.

``paper`` is FOUND to the letter, at its sizes; ``laptop`` the same recipe at a size that two cores
train in minutes (docs/decisions/found-presets.md). ``best`` departs from it where that wins;
``quick`` is its smaller sibling.
Every part of the recipe is a field, so that leaving it out is an ablation: ``modalities``,
``objectives``, ``fusion``, ``two_stage``, ``text_period``, ``pairs``. Each also sizes ShopperBERT
(One4all), which is trained where ``embeds`` names it (docs/decisions/shopper-bert.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from encoders.alignment import MODALITIES
from encoders.assortment import AssortmentConfig
from encoders.behaviour import BehaviourConfig
from encoders.feedback import FeedbackConfig
from encoders.habits import HabitConfig
from encoders.language_model import located, width_of
from encoders.outlook import OutlookConfig
from encoders.search import SearchConfig
from encoders.shopper_bert import ShopperBertConfig
from encoders.tabular import TabularConfig
from encoders.text import TextConfig
from feature_repo.errors import InputError

# Self-supervised objective → the stage it trains and the weights that switch it off.
OBJECTIVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "forecast": ("behaviour", ("forecast_weight",)),  # eq. 6
    "cycle": ("behaviour", ("cycle_weight",)),  # eq. 7
    "mlm": ("tabular", ("mlm_weight",)),  # eq. 9
    "rtd": ("tabular", ("rtd_weight",)),  # eq. 10
    "search": ("search", ("generator_weight", "discriminator_weight")),  # 4.2.3
}
EMBEDS = ("alignment", "shopper_bert")
Encoder = TypeVar("Encoder", BehaviourConfig, TabularConfig, SearchConfig)


@dataclass(frozen=True)
class Training:
    """How one stage is trained. Batch sizes are over all workers together."""

    steps: int
    batch_size: int
    learning_rate: float = 4e-4  # 5.1.4
    weight_decay: float = 0.01
    warmup_steps: int = 20
    encoder_rate: float = 1.0  # learning rate of encoders and fusion, against the rest
    report_every: int = 25
    precision: Literal["float32", "bfloat16"] | None = None  # of the forward pass; None: the job's


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
    windows: int = 26  # weekly windows of the past that a user's vector reads
    modalities: tuple[str, ...] = MODALITIES
    objectives: tuple[str, ...] = tuple(OBJECTIVES)  # of the self-supervised stage
    fusion: Literal["attention", "concatenation"] = "attention"
    fusion_heads: int = 4
    fusion_start: Literal["random", "even"] = "random"  # even: the mean of the modalities
    temperature: float = 1.0  # of eq. 15
    learn_temperature: bool = True
    symmetric: bool = True  # eq. 15 in both directions
    pairs: Literal["description", "intents"] = "intents"
    description_items: int = 8  # subjects that a sentence of a description names
    two_stage: bool = True  # False aligns encoders that nothing has pre-trained
    text_period: Literal["future", "same"] = "future"  # same: the horizon before the cut-off
    habits: HabitConfig | None = None  # aggregates that are read through their text
    outlook: OutlookConfig | None = None  # on overall behaviour, beside the joint space
    assortment: AssortmentConfig | None = None  # beside the joint space; no sentence reads it
    feedback: FeedbackConfig | None = None  # of the past, on sentences about its subjects
    objective: Literal["infonce", "intents"] = "infonce"  # of alignment
    outcome_weight: float = 0.0  # of sentences about overall behaviour; 0 leaves them out
    fact_levels: int | None = None  # coarsest taxonomy levels that sentences are made of
    unseen: tuple[str, ...] = ()  # subjects that no training sentence is about
    embeds: tuple[str, ...] = ("alignment",)  # models whose embeddings make a snapshot
    shopper_bert: ShopperBertConfig = ShopperBertConfig()

    def __post_init__(self) -> None:
        for name, known in (
            ("modalities", MODALITIES), ("objectives", tuple(OBJECTIVES)), ("embeds", EMBEDS),
        ):  # fmt: skip
            given = getattr(self, name)
            if unknown := [each for each in given if each not in known]:
                raise InputError(f"{name}: expected some of {list(known)}, got {unknown}")
        for name, known in (("modalities", MODALITIES), ("embeds", EMBEDS)):
            if not getattr(self, name):
                raise InputError(f"{name}: expected at least one of {list(known)}, got none")
        for name, choices in (
            ("fusion", ("attention", "concatenation")), ("text_period", ("future", "same")),
            ("pairs", ("description", "intents")), ("fusion_start", ("random", "even")),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise InputError(f"{name}: expected one of {choices}, got {getattr(self, name)!r}")
        if self.windows > (most := self.behaviour.windows):
            raise InputError(f"windows: expected at most behaviour.windows={most}, "
                             f"got {self.windows}")  # fmt: skip

    def reading(self, name: str) -> Preset:
        """The same with another language model in the text tower.

        How it is pooled and tuned, the tower finds out (``encoders.text``). Where the joint space
        is the language model's own, it is as wide as that.

        Raises:
            WeightsMissing: its files are not on this machine.
            InputError: it is neither an encoder nor a causal decoder of text.
        """
        width = width_of(name)
        own = self.text.projection == "near_identity"
        text = replace(self.text, model=located(name), dim=width if own else self.text.dim)
        habits = None if self.habits is None else replace(self.habits, width=text.dim)
        return replace(self, text=text, habits=habits)

    def pretrained(self) -> tuple[str, ...]:
        """Stages of self-supervised pre-training: modalities with an objective left."""
        if not self.two_stage:
            return ()
        taught = {OBJECTIVES[name][0] for name in self.objectives}
        return tuple(name for name in self.modalities if name in taught)

    def taught(self, stage: str, config: Encoder) -> Encoder:
        """A modality's configuration with the weights of absent objectives set to zero."""
        off: dict[str, Any] = {
            weight: 0.0
            for name, (of, weights) in OBJECTIVES.items()
            if of == stage and name not in self.objectives
            for weight in weights
        }
        return replace(config, **off)


def best() -> Preset:
    """Ours: habits beside FOUND's encoders, MiniLM at rest; minutes on two cores."""
    dim = 256
    return Preset(
        name="best",
        horizon_days=28,
        num_cutoffs=26,
        cutoff_step_days=7,
        behaviour=BehaviourConfig(dim=dim, dropout=0.0),
        tabular=TabularConfig(dim=32, out_dim=dim, dropout=0.0),
        search=SearchConfig(out_dim=dim),
        text=TextConfig(dim=384, projection="near_identity", rank=64, shrink=0.03),
        habits=HabitConfig(),
        outlook=OutlookConfig(),
        assortment=AssortmentConfig(),
        feedback=FeedbackConfig(),
        objective="intents",
        outcome_weight=8.0,
        fact_levels=2,
        fusion_dim=dim,
        fusion_layers=2,
        similarity="dot",
        max_facts=400,
        num_sentences=384,
        tuned_steps=0,
        tuned_sentences=48,
        stages={
            "behaviour": Training(steps=60, batch_size=96, learning_rate=1e-3),
            "tabular": Training(steps=60, batch_size=128, learning_rate=1e-3),
            "search": Training(steps=60, batch_size=64, learning_rate=1e-3),
            "alignment": Training(
                steps=240,
                batch_size=512,
                learning_rate=4e-3,
                weight_decay=1.0,
                encoder_rate=0.1,
            ),
            "shopper_bert": _PURCHASES,
        },
        shopper_bert=ShopperBertConfig(stretches=8, pooling="words", dropout=0.0),
    )


def quick() -> Preset:
    """``best`` in two thirds of the steps: the same on receipts, less where words must be learnt.

    Figures: docs/log.md, "Fewer steps".
    """
    steps = {"behaviour": 30, "tabular": 30, "search": 30, "alignment": 160}
    stages = {
        name: replace(stage, steps=steps.get(name, stage.steps))
        for name, stage in best().stages.items()
    }
    return replace(best(), name="quick", stages=stages)


def paper() -> Preset:
    """FOUND to the letter, at the sizes of appendix A: for GPUs."""
    dim = 1024
    return Preset(
        name="paper",
        horizon_days=14,  # A.2: the two windows that follow
        windows=7,  # A.2
        num_cutoffs=16,
        cutoff_step_days=7,
        behaviour=BehaviourConfig(
            window_encoder="albert", text_dim=768, text_embedding=128, text_layers=12,
            text_heads=12, max_tokens=512, dim=dim, temporal_dim=None, layers=6, heads=16,
            windows=9, pretrain_windows=9, forecast_windows=4, pooling="mean",
        ),
        tabular=TabularConfig(dim=dim, out_dim=dim, heads=8),
        search=SearchConfig(
            dim=768, out_dim=dim, layers=12, heads=12, max_tokens=512, embedding_dim=128,
            generator_dim=256, generator_layers=3,
        ),
        text=TextConfig(
            model="Qwen/Qwen2-1.5B", dim=dim, hidden=0, whiten=False, max_tokens=256
        ),
        fusion_dim=dim,
        fusion_layers=5,
        fusion_heads=16,
        fusion_start="even",
        similarity="cosine",
        learn_temperature=False,
        symmetric=False,
        pairs="description",
        description_items=30,
        max_facts=2_000,
        num_sentences=0,
        tuned_steps=0,
        tuned_sentences=0,
        stages={
            "behaviour": Training(steps=100_000, batch_size=512, warmup_steps=1_000),
            "tabular": Training(steps=100_000, batch_size=512, warmup_steps=1_000),
            "search": Training(steps=100_000, batch_size=512, warmup_steps=1_000),
            "alignment": Training(steps=100_000, batch_size=1_024, warmup_steps=1_000),
            "shopper_bert": Training(
                steps=300_000, batch_size=128, learning_rate=1e-4, weight_decay=1e-4,
                warmup_steps=30_000, report_every=1_000, precision="bfloat16",
            ),
        },
        shopper_bert=ShopperBertConfig(dim=550, layers=20, heads=10, length=350),
    )  # fmt: skip


def laptop() -> Preset:
    """The paper's recipe, small: two cores train it on Complete Journey in minutes."""
    dim = 128
    return replace(
        paper(),
        name="laptop",
        behaviour=replace(
            paper().behaviour, text_dim=64, text_embedding=64, text_layers=2, text_heads=4,
            max_tokens=64, dim=dim, heads=4,
        ),
        tabular=TabularConfig(dim=32, out_dim=dim),
        search=SearchConfig(out_dim=dim),
        text=TextConfig(dim=dim, hidden=0, whiten=False, max_tokens=64),
        fusion_dim=dim,
        fusion_layers=2,
        fusion_heads=4,
        description_items=8,
        max_facts=400,
        stages={
            "behaviour": Training(steps=60, batch_size=32, learning_rate=1e-3),
            "tabular": Training(steps=60, batch_size=128, learning_rate=1e-3),
            "search": Training(steps=60, batch_size=64, learning_rate=1e-3),
            "alignment": Training(
                steps=80, batch_size=64, learning_rate=1e-3, precision="bfloat16"
            ),
            "shopper_bert": _PURCHASES,
        },
    )  # fmt: skip


def shopper_bert() -> Preset:
    """ShopperBERT (One4all) alone, read as counts of a long log: ours.

    The letter is `--embeds shopper_bert` with `--preset laptop`, or `paper` at the paper's size.
    """
    return replace(
        laptop(),
        name="shopper_bert",
        embeds=("shopper_bert",),
        shopper_bert=ShopperBertConfig(stretches=8, pooling="words", dropout=0.0),
    )


_PURCHASES = Training(
    steps=1_000, batch_size=16, learning_rate=2e-3, weight_decay=1e-4, warmup_steps=60,
    report_every=50,
)  # fmt: skip

PRESETS: dict[str, Callable[[], Preset]] = {
    "laptop": laptop, "best": best, "quick": quick, "paper": paper, "shopper_bert": shopper_bert,
}  # fmt: skip


def preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise InputError(f"preset: expected one of {sorted(PRESETS)}, got {name!r}")
    return PRESETS[name]()


def untrained(chosen: Preset) -> Preset:
    """The same model with no training step at all: the control that shows what training adds."""
    stages = {name: replace(stage, steps=0) for name, stage in chosen.stages.items()}
    return replace(chosen, name=f"{chosen.name}-untrained", tuned_steps=0, stages=stages)
