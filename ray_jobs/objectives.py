"""What each training stage optimises: a model with ``loss`` and the batches it is fed.

Built inside each worker from a JSON-able :class:`StageSpec`, so that the same code runs in
process and on Ray. A batch depends on (seed, step, rank) only: a resumed run draws the same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from encoders import checkpoint, templates
from encoders.alignment import MODALITIES, AlignmentConfig, FoundModel
from encoders.assortment import AssortmentCounts
from encoders.batch import Collate
from encoders.behaviour import BehaviourEncoder
from encoders.catalogue import Catalogue
from encoders.descriptions import Descriptions, DescriptionSampler, distinct_users
from encoders.history import History
from encoders.pairs import FactTable, OutcomeTable, PairSampler
from encoders.past import collate_for, window_text, word_pieces
from encoders.purchases import PurchaseCollate, PurchaseHistory, fit_vocabularies
from encoders.search import SearchEncoder
from encoders.shopper_bert import ShopperBert
from encoders.table import TableColumns
from encoders.tabular import TabularConfig, TabularEncoder
from encoders.text import LineEncoder
from feature_repo.errors import InputError
from feature_repo.schema import AGGREGATE_PREFIX, TIMESTAMP
from ray_jobs import feedback, frames, outlook, pretext
from ray_jobs.facts import selected
from ray_jobs.presets import Preset

Model = TypeVar("Model", bound=nn.Module)

_FITTED = 20_000  # users whom the assortment and product words are fitted on
_MATCHED = 2_000  # users by whom its size is set
_CENTRED = 8  # batches by whose modalities' moments an even fusion starts,
_MOST_CENTRED = 512  # and the most rows of them: a large encoder takes minutes for so many
_SCALED = 256  # users by whom counts of product words are weighed


@dataclass(frozen=True)
class StageSpec:
    """One stage's inputs. Paths are absolute."""

    stage: str
    frames: str  # directory of ray_jobs.frames
    cache: str
    preset: Preset
    seed: int
    start: dict[str, str] = field(default_factory=dict)  # stage → checkpoint to start from


@dataclass
class Objective:
    """A model and ``batch(step, rank, size)``; ``before_step`` may change what is trained."""

    model: nn.Module
    batch: Callable[[int, int, int], Any]
    before_step: Callable[[int], None] = lambda step: None
    finish: Callable[[], None] = lambda: None  # once, on worker 0
    catalogue: Catalogue | None = None  # kept beside the weights


def build(spec: StageSpec, world_size: int = 1) -> Objective:
    """The objective of a stage, ready to train."""
    torch.manual_seed(spec.seed)
    tables = frames.read(Path(spec.frames))
    if spec.stage == "shopper_bert":
        return _shopper_bert(spec, frames.purchases(tables, Path(spec.cache)))
    history, sentences = frames.past(tables, Path(spec.cache), spec.preset.text.model)
    if spec.stage == "alignment":
        return _alignment(spec, history, tables, sentences, world_size)
    return _PRETRAINING[spec.stage](spec, history)


def _behaviour(spec: StageSpec, history: History) -> Objective:
    config = spec.preset.taught("behaviour", spec.preset.behaviour)
    model = BehaviourEncoder(config)
    model.fit_lines(torch.from_numpy(history.lines_VE))
    model = _warm(model, spec)
    collate = Collate(
        history, windows=model.config.pretrain_windows, **window_text(model.config)
    )  # fmt: skip
    return Objective(model, _rows(spec, collate, np.arange(len(history.user_ids))))


def _tabular(spec: StageSpec, history: History) -> Objective:
    model = _warm(TabularEncoder(fitted_columns(spec, history)), spec)
    collate = Collate(history, windows=1, table=model.config.columns)
    return Objective(model, _rows(spec, collate, np.arange(len(history.user_ids))))


def _search(spec: StageSpec, history: History) -> Objective:
    model = _warm(SearchEncoder(spec.preset.taught("search", spec.preset.search)), spec)
    collate = Collate(
        history, windows=spec.preset.windows, search_tokens=word_pieces(),
        max_tokens=spec.preset.search.max_tokens,
    )  # fmt: skip
    searched = np.flatnonzero(history.searches.length) if history.searches else np.zeros(0, int)
    return Objective(model, _rows(spec, collate, searched))


def _shopper_bert(spec: StageSpec, history: PurchaseHistory) -> Objective:
    fitted = replace(spec.preset.shopper_bert, vocabularies=fit_vocabularies(history))
    model = _warm(ShopperBert(fitted), spec)

    def finish() -> None:
        if model.config.pooling == "words":
            model.to("cpu").eval()
            collate = PurchaseCollate(history, model.config.vocabularies)
            some = np.random.default_rng(spec.seed).permutation(history.user_ids).tolist()
            everyone, few = some[:_FITTED], some[:_SCALED]
            model.fit_words(
                collate.latest(everyone, **model.config.read),
                collate.latest(few, **model.config.read),
            )

    batch = pretext.batches(history, model.config, spec.seed)
    return Objective(model, batch, finish=finish)


def _alignment(
    spec: StageSpec,
    history: History,
    tables: dict[str, pa.Table],
    sentences: LineEncoder,
    world_size: int,
) -> Objective:
    preset = spec.preset
    users, cutoffs = tables["samples"]["user_id"].to_pylist(), tables["samples"]["cutoff"]
    cutoffs_us = cutoffs.cast(TIMESTAMP).cast(pa.int64()).to_numpy()
    rows = history.rows(users, cutoffs_us.tolist())
    kept = selected(tables["facts"], preset)
    facts = FactTable(kept, users, cutoffs_us, everything=tables["facts"])
    outcomes = None
    if "outcomes" in tables:
        outcomes = OutcomeTable(tables["outcomes"], users, cutoffs_us)
    if spec.stage in spec.start:
        model = cast(FoundModel, checkpoint.load(Path(spec.start[spec.stage]))[0])
    else:
        model = _fresh_model(spec, history, facts, outcomes, sentences, rows)
    collate = collate_for(model, history, joint_only=True)
    if model.habits is not None and spec.stage not in spec.start:
        rng = np.random.default_rng(spec.seed)
        some = collate.habits(rng.choice(rows, min(len(rows), 2_000), replace=False))
        if some is not None:
            model.habits.fit(some)
    if preset.fusion_start == "even" and spec.stage not in spec.start:
        rng = np.random.default_rng(spec.seed)
        size = preset.stages["alignment"].batch_size
        few = rng.choice(rows, min(len(rows), _CENTRED * size, _MOST_CENTRED), replace=False)
        parts = np.array_split(few, -(-len(few) // size))
        model.eval().start_even(collate(part) for part in parts)
    if preset.pairs == "description":
        named = Descriptions(facts, tables["facts"], max_items=preset.description_items)
        described = _described(spec, model, collate, named, rows, users, world_size)
        return replace(described, catalogue=Catalogue.from_table(tables["catalogue"]))
    sampler = PairSampler(
        collate, facts, rows,
        lambda texts: {"pooled": torch.from_numpy(sentences(texts))},
        num_sentences=preset.num_sentences // world_size, horizon_days=preset.horizon_days,
        outcomes=outcomes,
        outcome_weight=preset.outcome_weight / world_size,  # every worker asks for all of them
    )  # fmt: skip
    first_tuned = preset.stages["alignment"].steps - preset.tuned_steps

    def before_step(step: int) -> None:
        """Up to the last ``tuned_steps`` the language model rests and its vectors are cached."""
        if step >= first_tuned:
            sampler.tokenize = model.text.tokenize
            sampler.num_sentences = preset.tuned_sentences // world_size

    def batch(step: int, rank: int, size: int) -> Any:
        rng = np.random.default_rng([spec.seed, step, rank])
        return sampler(rng.choice(len(rows), size, replace=len(rows) < size), rng)

    def finish() -> None:
        sentences.save()
        latest = latest_rows(history, rows)
        device = next(model.parameters()).device
        model.eval()
        model.match_assortment(collate_for(model, history)(latest[:_MATCHED]).to(device))
        if preset.feedback is not None and model.habits is not None:
            feedback.fit(model, collate, preset, facts, outcomes, rows, latest)
        if model.outlook is not None and outcomes is not None:
            outlook.fit(model, collate, preset, outcomes, rows, latest, spec.seed)

    catalogue = Catalogue.from_table(tables["catalogue"])
    if outcomes is not None:
        catalogue = catalogue.with_outcomes(outcomes.counts())
    return Objective(model, batch, before_step, finish, catalogue)


def _described(
    spec: StageSpec, model: FoundModel, collate: Collate, descriptions: Descriptions,
    rows: np.ndarray, users: list[str], world_size: int,
) -> Objective:  # fmt: skip
    """Alignment as in the paper: one description per user, the language model tuned throughout."""
    sampler = DescriptionSampler(collate, descriptions, rows, model.text.tokenize)
    codes = np.unique(users, return_inverse=True)[1]

    def batch(step: int, rank: int, size: int) -> Any:
        # All workers draw the same whole batch and take their share, so nobody is in it twice.
        whole = distinct_users(codes, size * world_size, np.random.default_rng([spec.seed, step]))
        rng = np.random.default_rng([spec.seed, step, rank])
        return sampler(whole[rank * size : (rank + 1) * size], rng)

    return Objective(model, batch)


def _fresh_model(
    spec: StageSpec,
    history: History,
    facts: FactTable,
    outcomes: OutcomeTable | None,
    sentences: LineEncoder,
    rows: np.ndarray,
) -> FoundModel:
    """Fusion and text tower around the pre-trained modality encoders, or around new ones."""
    preset = spec.preset
    pretrained = {
        stage: checkpoint.load(Path(path), expect=stage)[0] for stage, path in spec.start.items()
    }
    fresh: dict[str, Any] = {"behaviour": preset.behaviour, "search": preset.search}
    if "tabular" in preset.modalities:
        fresh["tabular"] = fitted_columns(spec, history)
    encoders = {
        name: pretrained[name].config if name in pretrained else fresh[name]
        for name in preset.modalities
        if name != "search" or history.searches
    }
    if not encoders:
        raise InputError(f"modalities: this data set has none of {list(preset.modalities)}")
    habits = preset.habits if preset.aggregates else None
    if habits is not None and "tabular" in encoders:
        columns = encoders["tabular"].columns
        habits = replace(
            habits, profile_width=len(columns.scales), profile_sizes=tuple(columns.cardinalities)
        )
    latest = latest_rows(history, rows)
    assortment = preset.assortment
    if assortment is not None:
        assortment = assortment.fitted(history.terms(), history.windows(latest, assortment.windows))
    model = FoundModel(
        AlignmentConfig(
            **{name: encoders.get(name) for name in MODALITIES},
            windows=preset.windows,
            text=preset.text,
            fusion=preset.fusion,
            fusion_dim=preset.fusion_dim,
            fusion_layers=preset.fusion_layers,
            dropout=preset.behaviour.dropout,
            habits=habits,
            outlook=preset.outlook if habits is not None and outcomes is not None else None,
            assortment=assortment,
            objective=preset.objective,
            similarity=preset.similarity,
            fusion_heads=preset.fusion_heads,
            fusion_start=preset.fusion_start,
            temperature=preset.temperature,
            learn_temperature=preset.learn_temperature,
            symmetric=preset.symmetric,
        )
    )
    if model.behaviour is not None and "behaviour" not in pretrained:
        model.behaviour.fit_lines(torch.from_numpy(history.lines_VE))
    for stage in encoders.keys() & pretrained.keys():
        getattr(model, stage).load_state_dict(pretrained[stage].state_dict())
    model.start_aligned()
    if model.assortment is not None and assortment is not None:
        counts = AssortmentCounts(history.terms(), assortment.terms)
        model.assortment.fit(counts(history.windows(latest, assortment.windows)))
    if not preset.text.whiten:
        return model
    # What whitening is fitted on: the language model's vectors of all that is asked or counted,
    # said plainly. A subject that is never asked for in training still has its own direction.
    plain = [
        templates.plain_sentence(*name, horizon_days=preset.horizon_days) for name in facts.names
    ]
    if outcomes is not None:
        plain += [templates.outcome_sentence(name, horizon_days=d) for name, d in outcomes.names]
    counted = history.habits_VE if model.habits is not None else history.habits_VE[:0]
    model.text.whiten.fit(torch.from_numpy(np.concatenate([sentences(plain), counted])))
    return model


def latest_rows(history: History, rows: np.ndarray) -> np.ndarray:
    """Of samples' rows, each user's latest, at most :data:`_FITTED`: an even share of them."""
    users = np.array(history.user_ids, dtype=object)[rows]
    order = np.lexsort((rows, users))
    last = np.append(users[order][1:] != users[order][:-1], True)
    latest = rows[order][last]
    return latest[:: max(1, -(-len(latest) // _FITTED))]


def _rows(spec: StageSpec, collate: Collate, rows: np.ndarray) -> Callable[[int, int, int], Any]:
    def batch(step: int, rank: int, size: int) -> Any:
        rng = np.random.default_rng([spec.seed, step, rank])
        return collate(rng.choice(rows, size, replace=len(rows) < size))

    return batch


def _warm(model: Model, spec: StageSpec) -> Model:
    """The model of the stage's own start checkpoint, if there is one, with its configuration."""
    if path := spec.start.get(spec.stage):
        warm, _ = checkpoint.load(Path(path), expect=spec.stage)
        return cast(Model, warm)
    return model


def fitted_columns(spec: StageSpec, history: History) -> TabularConfig:
    """The preset's tabular config with vocabularies and scales of this history."""
    assert history.profile is not None
    without = None if spec.preset.aggregates else AGGREGATE_PREFIX
    columns = TableColumns.fit(history.profile, without_prefix=without)
    config = spec.preset.taught("tabular", spec.preset.tabular)
    return replace(config, vocabularies=columns.vocabularies, scales=columns.scales)


_PRETRAINING = {"behaviour": _behaviour, "tabular": _tabular, "search": _search}
