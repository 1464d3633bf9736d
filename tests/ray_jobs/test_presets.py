"""Presets: the faithful ones keep to the paper, at its sizes or small, and train."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.batch import Collate
from encoders.descriptions import distinct_users
from encoders.language_model import MINILM
from encoders.pairs import PairBatch
from encoders.past import collate_for, cut_history
from encoders.templates import round_down
from encoders.text import LineEncoder
from feature_repo.errors import InputError
from feature_repo.transforms import micros
from ray_jobs import frames, objectives, presets, train
from ray_jobs.embed import embed
from ray_jobs.presets import Preset
from ray_jobs.training_frames import training_frames

FAITHFUL = ("laptop", "paper")


def test_the_presets_have_their_names() -> None:
    assert {*presets.PRESETS} >= {"laptop", "best", "quick", "paper"}
    for name in ("laptop", "best", "quick", "paper"):
        assert presets.preset(name).name == name
    with pytest.raises(InputError, match="preset: expected one of .*'laptop'.*, got 'huge'"):
        presets.preset("huge")
    with pytest.raises(InputError, match="windows: expected at most behaviour.windows=9, got 26"):
        replace(presets.laptop(), windows=26)


def test_quick_is_best_in_fewer_steps() -> None:
    best, quick = presets.best(), presets.quick()
    assert replace(quick, name="best", stages=best.stages) == best
    for name in ("behaviour", "tabular", "search", "alignment"):
        assert quick.stages[name].steps < best.stages[name].steps


@pytest.mark.parametrize("name", FAITHFUL)
def test_the_faithful_presets_keep_to_the_paper(name: str) -> None:
    preset = presets.preset(name)
    behaviour, tabular = preset.behaviour, preset.tabular
    assert behaviour.window_encoder == "albert"
    assert (behaviour.temporal, behaviour.layers, behaviour.temporal_dim) == (
        "transformer",
        6,
        None,
    )
    assert (behaviour.pretrain_windows, behaviour.forecast_windows) == (9, 4)  # A.1: 9 = 5 + 4
    assert (behaviour.temperature, behaviour.learn_temperature) == (1.0, False)  # eq. 6
    assert (behaviour.cycle_weight, behaviour.forecast_weight) == (0.1, 1.0)  # eq. 7, A.1
    assert behaviour.pooling == "mean"  # eq. 5
    assert (tabular.blocks, tabular.mask_rate) == (4, 0.3)  # A.1
    assert (tabular.mlm_weight, tabular.rtd_weight) == (0.6, 0.4)  # eq. 11
    assert (preset.windows, preset.horizon_days) == (7, 14)  # A.2
    assert preset.similarity == "cosine"
    assert (preset.temperature, preset.learn_temperature, preset.symmetric) == (1.0, False, False)
    assert preset.pairs == "description"  # 4.1
    assert (preset.text.hidden, preset.text.whiten) == (0, False)
    assert (preset.fusion, preset.fusion_start) == ("attention", "even")
    assert preset.two_stage
    assert preset.text_period == "future"
    assert preset.modalities == ("behaviour", "tabular", "search")
    assert {*preset.objectives} == {*presets.OBJECTIVES}


def test_the_paper_preset_has_the_papers_sizes() -> None:
    preset = presets.paper()
    widths = [preset.behaviour.dim, preset.tabular.dim, preset.tabular.out_dim,
              preset.search.out_dim, preset.fusion_dim, preset.text.dim]  # fmt: skip
    assert widths == [1024] * 6
    assert preset.fusion_layers == 5
    stages = {**preset.stages}
    shopper_bert = stages.pop("shopper_bert")
    assert {stage.learning_rate for stage in stages.values()} == {4e-4}  # 5.1.4
    assert {*stages} == {"behaviour", "tabular", "search", "alignment"}
    assert shopper_bert == presets.Training(
        steps=shopper_bert.steps, batch_size=128, learning_rate=1e-4, weight_decay=1e-4,
        warmup_steps=30_000, report_every=1_000, precision="bfloat16",
    )  # fmt: skip
    config = preset.shopper_bert
    assert (config.dim, config.layers, config.heads, config.length) == (550, 20, 10, 350)
    assert (config.mask_share, config.augment_share, config.crop_share) == (0.15, 0.3, 0.5)
    assert (config.least_per_month, config.top_share, config.whole_visits) == (0.5, 0.01, False)


def small(preset: Preset, *, steps: int, size: int) -> Preset:
    """The preset with few steps on few users, and MiniLM for a language model that is not here."""
    stage = presets.Training(steps=steps, batch_size=size, warmup_steps=1, report_every=1)
    return replace(
        preset, num_cutoffs=2, text=replace(preset.text, model=MINILM, max_tokens=48),
        stages=dict.fromkeys(preset.stages, stage),
    )  # fmt: skip


def trained_model(place: Any, preset: Preset) -> FoundModel:
    """Every stage of the preset, as the pipeline trains them."""
    shared = place.shared(preset=preset)
    records = train.train_stages(shared, {stage: {} for stage in preset.pretrained()})
    root = place.workspace.root
    start = {stage: str(root / record["checkpoint"]) for stage, record in records.items()}
    aligned = train.train_stages(shared, {"alignment": start})["alignment"]
    model, _ = checkpoint.load(root / aligned["checkpoint"], expect="alignment")
    assert isinstance(model, FoundModel)
    return model


def test_the_laptop_recipe_trains_and_embeds(copy: Any, bench: Any) -> None:
    preset = small(presets.laptop(), steps=2, size=8)
    model = trained_model(copy, preset)
    assert model.config.windows == 7
    assert all(centre.mean_D.any() for centre in model.fusion.centre)  # fitted before training
    assert model.log_scale.item() == 0.0
    lora = [p for n, p in model.text.named_parameters() if "lora_B" in n]
    assert all(p.any() for p in lora)  # tuned from the first step on
    found = copy.workspace.checkpoints.glob("alignment-*")
    (directory,) = [d for d in found if checkpoint.read_info(d).config["windows"] == 7]
    record = embed(copy.workspace, copy.dataset, directory, [bench.AS_OF])
    fused = copy.matrix("fused", record["snapshot"])
    np.testing.assert_allclose(np.linalg.norm(fused, axis=1), 1.0, rtol=1e-5)
    assert fused.std(0).min() > 1e-4


def test_descriptions_are_drawn_over_users_and_windows_are_tokens(copy: Any, bench: Any) -> None:
    preset = small(presets.laptop(), steps=1, size=8)
    record = training_frames(copy.shared(preset=preset))
    directory = copy.workspace.root / record["outputs"][0]
    spec = objectives.StageSpec("alignment", str(directory), str(copy.workspace.cache), preset, 0)
    whole = objectives.build(spec).batch(3, 0, 16)
    assert isinstance(whole, PairBatch)
    assert whole.label_BS.shape == (16, 16)
    assert whole.label_BS.diagonal().all()
    assert "input_ids" in whole.tokens  # no cached vectors: LoRA is tuned throughout
    assert len(whole.users.window_text.tokens_NL) == whole.users.filled_BW.sum()
    # Two workers share the batch that one would draw.
    halves = [objectives.build(spec, 2).batch(3, rank, 8).users for rank in (0, 1)]
    together = torch.cat([half.filled_BW for half in halves])
    assert torch.equal(together, whole.users.filled_BW)


def test_a_description_names_what_all_of_a_kind_amounts_to(copy: Any, bench: Any) -> None:
    """Also what is too rare to be named itself."""
    preset = replace(small(presets.laptop(), steps=0, size=8), max_facts=3)
    directory = next((copy.workspace.root / "training").iterdir())
    spec = objectives.StageSpec("alignment", str(directory), str(copy.workspace.cache), preset, 0)
    objective = objectives.build(spec)
    tower, said = objective.model.text, []
    tokenizer = tower.tokenizer
    tower.tokenizer = lambda texts, **more: said.extend(texts) or tokenizer(texts, **more)
    objective.batch(0, 0, 100)
    tables = frames.read(directory)
    users, cutoffs = (tables["samples"][name].to_pylist() for name in ("user_id", "cutoff"))
    spent = dict.fromkeys(zip(users, cutoffs, strict=True), 0.0)
    for row in tables["facts"].to_pylist():
        if row["kind"] == "purchase" and row["level"] <= 1:
            spent[row["user_id"], row["cutoff"]] += row["amount"]
    codes = np.unique(users, return_inverse=True)[1]
    drawn = distinct_users(codes, 100, np.random.default_rng([0, 0]))
    checked = 0
    for text, sample in zip(said, drawn, strict=True):
        if named := re.search(r"amounting more than ([\d,]+) dollars", text):
            total = round_down(spent[users[sample], cutoffs[sample]] * (1 - 1e-9))
            assert float(named[1].replace(",", "")) == total
            checked += 1
    assert checked > 20


def test_the_same_windows_are_read_online_as_in_training(copy: Any, bench: Any) -> None:
    """A collate for one user alone gives what the whole history's gives."""
    preset = small(presets.laptop(), steps=0, size=8)
    directory = next((copy.workspace.root / "training").iterdir())
    spec = objectives.StageSpec("alignment", str(directory), str(copy.workspace.cache), preset, 0)
    model = objectives.build(spec).model.eval()
    tables = frames.read(directory)
    lines = LineEncoder(copy.workspace.cache)
    every = cut_history(tables, lines)
    users, time = sorted(set(every.user_ids)), micros(bench.AS_OF)
    user = next(u for u in users if every.rows([u], [time])[0] >= 0)
    alone = cut_history(
        {
            name: table.filter(pc.equal(table["user_id"], user))
            for name, table in tables.items()
            if "user_id" in table.column_names
        },
        lines,
    )
    vectors = []
    for history in (every, alone):
        collate: Collate = collate_for(model, history)
        with torch.no_grad():
            vectors.append(model(collate(history.rows([user], [time]))))
    torch.testing.assert_close(vectors[0], vectors[1], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_paper_preset_takes_a_step_of_every_stage(copy: Any) -> None:
    model = trained_model(copy, small(presets.paper(), steps=1, size=3))
    assert model.dim == 1024
    assert sum(p.numel() for p in model.parameters()) > 100e6
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
