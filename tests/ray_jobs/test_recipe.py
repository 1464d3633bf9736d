"""Switches of the recipe: each leaves out what it names, and nothing else."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from transformers import Qwen2Config, Qwen2Model

from encoders import checkpoint, templates
from encoders.alignment import MODALITIES, FoundModel
from encoders.behaviour import BehaviourEncoder
from encoders.fusion import Concatenation, Fusion
from encoders.language_model import MINILM
from encoders.past import collate_for, cut_history, encode_rows
from encoders.query import QueryEncoder
from encoders.text import LineEncoder
from feature_repo import schema
from feature_repo.errors import InputError
from ray_jobs import objectives, pipeline, presets
from ray_jobs.embed import embed
from ray_jobs.pipeline import Pipeline
from ray_jobs.training_frames import training_frames

AS_OF = ["--as-of", "2024-06-17"]


@pytest.fixture
def spec_of(trained: Any, bench: ModuleType) -> Callable[..., objectives.StageSpec]:
    """A stage of the trained workspace under the tiny preset, with some fields changed."""

    def build(stage: str = "alignment", *, start: bool = False, **changes: Any) -> Any:
        preset = replace(bench.tiny_preset(), **changes)
        (samples,) = (trained.workspace.root / "training").iterdir()
        return objectives.StageSpec(
            stage, str(samples), str(trained.workspace.cache), preset, seed=0,
            start=trained.start() if start else {},
        )  # fmt: skip

    return build


@pytest.mark.parametrize(
    "kept", [("behaviour",), ("tabular",), ("search", "tabular"), ("behaviour", "search")]
)
def test_a_modality_left_out_has_no_encoder_and_no_vector(
    spec_of: Callable, kept: tuple[str, ...]
) -> None:
    objective = objectives.build(spec_of(start=True, modalities=kept))
    model = objective.model
    assert isinstance(model, FoundModel)
    assert [name for name in MODALITIES if getattr(model, name) is not None] == sorted(
        kept, key=MODALITIES.index
    )
    batch = objective.batch(0, 0, 16)
    model.loss(batch)[0].backward()
    assert {*model.modalities(batch.users)} == {*kept}


def test_without_aggregates_nothing_is_counted_and_training_goes_on(spec_of: Callable) -> None:
    objective = objectives.build(spec_of(aggregates=False))
    model = objective.model
    assert isinstance(model, FoundModel) and model.habits is None
    assert model.outlook is None  # it reads the habits' totals
    assert model.assortment is not None
    loss, _ = model.loss(objective.batch(0, 0, 16))
    loss.backward()
    assert torch.isfinite(loss)
    assert model.text.project.out.bias.grad is not None


def test_who_bought_what_is_left_out_of_the_sentences_is_not_told_to_buy_nothing(
    spec_of: Callable, trained: Any
) -> None:
    """One fact is left, so most users bought something, yet nothing a sentence speaks of."""
    spec = spec_of(max_facts=1, outcome_weight=0.0)
    batch = objectives.build(spec).batch(0, 0, 200)
    tables = objectives.frames.read(Path(spec.frames))
    drawn = np.random.default_rng([0, 0, 0]).choice(
        tables["samples"].num_rows, 200, replace=tables["samples"].num_rows < 200
    )
    facts = tables["facts"].filter(pc.equal(tables["facts"]["kind"], "purchase"))
    bought = set(zip(facts["user_id"].to_pylist(), facts["cutoff"].to_pylist(), strict=True))
    samples = [tables["samples"][name].to_pylist() for name in ("user_id", "cutoff")]
    idle = np.array([sample not in bought for sample in zip(*samples, strict=True)])[drawn]
    assert 0 < idle.sum() < len(idle)
    lines = LineEncoder(trained.workspace.cache)
    words = [
        templates.sentence("purchase", [templates.NOTHING], horizon_days=28, wording=w)
        for w in range(templates.num_wordings("purchase", nothing=True))
    ]
    said = batch.tokens["pooled"].numpy() @ lines(words).T > 0.9999
    assert said.any()
    for column in np.flatnonzero(said.any(1)):
        np.testing.assert_array_equal(batch.label_BS[:, column], idle)


def test_embedding_leaves_it_out_too(spec_of: Callable, trained: Any) -> None:
    model = objectives.build(spec_of(modalities=("tabular",))).model.eval()
    tables = objectives.frames.read(Path(spec_of().frames))
    history = cut_history(tables, LineEncoder(trained.workspace.cache))
    vectors = encode_rows(model, collate_for(model, history), np.arange(5))
    assert {*vectors} == {"tabular", "fused"}


def test_fusion_can_be_concatenation(spec_of: Callable) -> None:
    attention = objectives.build(spec_of(start=True)).model
    objective = objectives.build(spec_of(start=True, fusion="concatenation"))
    concatenation = objective.model
    assert isinstance(attention.fusion, Fusion)
    assert isinstance(concatenation.fusion, Concatenation)
    for name in MODALITIES:  # the encoders are the same pre-trained ones
        mine, theirs = (getattr(m, name).state_dict() for m in (attention, concatenation))
        assert mine.keys() == theirs.keys()
    batch = objective.batch(0, 0, 16).users
    with torch.no_grad():
        vectors = concatenation.eval().modalities(batch)
        shown = [v * batch.present_BM[:, m, None] for m, v in enumerate(vectors.values())]
        expected = concatenation.fusion.out(torch.cat(shown, 1))
        without_habits = replace(batch, habits=None)
        torch.testing.assert_close(concatenation.joint(vectors, without_habits), expected)


@pytest.mark.parametrize("off", presets.OBJECTIVES)
def test_an_objective_left_out_weighs_nothing(spec_of: Callable, off: str) -> None:
    stage, weights = presets.OBJECTIVES[off]
    kept = tuple(name for name in presets.OBJECTIVES if name != off)
    whole = objectives.build(spec_of(stage))
    part = objectives.build(spec_of(stage, objectives=kept))
    before, after = whole.model.config, part.model.config
    assert all(getattr(before, name) > 0 for name in weights)
    assert after == replace(before, **dict.fromkeys(weights, 0.0))
    torch.manual_seed(0)
    total, parts = part.model.loss(part.batch(0, 0, 16))
    others = [n for n, (of, _) in presets.OBJECTIVES.items() if of == stage and n != off]
    assert (total.item() > 0) == bool(others)
    assert all(value.item() > 0 for value in parts.values())  # still reported


def test_what_is_pretrained_follows_objectives_modalities_and_stages(bench: ModuleType) -> None:
    tiny = bench.tiny_preset()
    assert tiny.pretrained() == ("behaviour", "tabular", "search")
    assert replace(tiny, objectives=("mlm", "search")).pretrained() == ("tabular", "search")
    assert replace(tiny, modalities=("behaviour",)).pretrained() == ("behaviour",)
    assert replace(tiny, two_stage=False).pretrained() == ()


def test_one_stage_aligns_encoders_that_nothing_has_pretrained(
    spec_of: Callable, trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[dict[str, Any]] = []

    def train_stages(shared: Any, stages: dict[str, Any]) -> dict[str, Any]:
        wanted.append(stages)
        return {stage: {"checkpoint": f"checkpoints/{stage}"} for stage in stages}

    monkeypatch.setattr(pipeline, "train_stages", train_stages)
    monkeypatch.setattr(pipeline, "embed", lambda *_: {"snapshot": "s"})
    monkeypatch.setattr(pipeline, "publish", lambda *_, **__: None)
    for two_stage in (True, False):
        settings = Pipeline(workspace=trained.root, source=trained.dataset.source,
                            as_of="2024-06-17", preset="tiny", two_stage=two_stage)  # fmt: skip
        monkeypatch.setattr(pipeline, "ingest", lambda *_, **__: trained.dataset)
        monkeypatch.setattr(pipeline, "build", lambda *_: None)
        pipeline.run(settings)
    first, second, _, alone = wanted
    assert {*first} == {*second["alignment"]} == {"behaviour", "tabular", "search"}
    assert alone == {"alignment": {}}


def test_text_of_the_same_period_ends_at_the_cutoff(
    copy: Any, bench: ModuleType, world: Any
) -> None:
    horizon = timedelta(days=14)
    preset = replace(bench.tiny_preset(), text_period="same")
    both = {
        name: training_frames(copy.shared(preset=replace(preset, text_period=name)))
        for name in ("future", "same")
    }
    assert both["future"]["key"] != both["same"]["key"]
    root = copy.workspace.root
    facts = {n: pq.read_table(root / r["outputs"][0] / "facts.parquet") for n, r in both.items()}
    samples = [pq.read_table(root / r["outputs"][0] / "samples.parquet") for r in both.values()]
    assert samples[0].equals(samples[1])
    searches = world.searches.to_pylist()
    for name, shift in (("future", timedelta(0)), ("same", -horizon)):
        told = {
            (row["user_id"], row["cutoff"], row["subject"]): row["count"]
            for row in facts[name].to_pylist()
            if row["kind"] == "search"
        }
        cutoffs = sorted({row["cutoff"] for row in facts[name].to_pylist()})
        expected: dict[tuple[str, Any, str], float] = {}
        for cutoff in cutoffs:
            for row in searches:
                known = max(row["timestamp"], row["known_at"] or row["timestamp"])
                inside = cutoff + shift <= row["timestamp"] < cutoff + shift + horizon
                if inside and known < bench.AS_OF:
                    key = (row["user_id"], cutoff, row["text"])
                    expected[key] = expected.get(key, 0.0) + 1.0
        assert told == expected
        assert told


def test_outcomes_of_the_same_period_are_those_that_have_ended(
    copy: Any, bench: ModuleType, world: Any
) -> None:
    preset = replace(bench.tiny_preset(), text_period="same", outcome_weight=1.0)
    made = training_frames(copy.shared(preset=preset))
    directory = copy.workspace.root / made["outputs"][0]
    told = pq.read_table(directory / "outcomes.parquet")
    samples = pq.read_table(directory / "samples.parquet")
    assert told.schema.equals(schema.OUTCOMES) and set(told["cutoff"].to_pylist()) <= set(
        samples["cutoff"].to_pylist()
    )
    bought: dict[str, list[Any]] = {}
    for row in world.events.to_pylist():
        if row["source"] == "bill" and row["status"] != "failed":
            bought.setdefault(row["user_id"], []).append(row["timestamp"])
    nothing = [row for row in told.to_pylist() if row["outcome"] == "nothing"]
    assert len({row["horizon_days"] for row in nothing}) > 1
    for row in nothing:
        begun = row["cutoff"] - timedelta(days=row["horizon_days"])
        some = any(begun <= at < row["cutoff"] for at in bought.get(row["user_id"], []))
        assert row["happened"] == (not some)


def test_switches_are_options_of_the_command(call: Callable[..., Any]) -> None:
    settings = call(*AS_OF, "--modalities", "behaviour,tabular", "--objectives", "mlm", "--fusion",
                    "concatenation", "--no-two-stage", "--text-period", "same",
                    "--no-aggregates")  # fmt: skip
    assert settings.chosen == replace(
        presets.best(), modalities=("behaviour", "tabular"), objectives=("mlm",), aggregates=False,
        fusion="concatenation", two_stage=False, text_period="same",
    )  # fmt: skip
    assert call(*AS_OF).chosen == presets.best()


def test_the_papers_alternatives_are_options_of_the_command(call: Callable[..., Any]) -> None:
    given = ("--preset", "laptop", "--temporal", "gru", "--temperature", "0.07")
    laptop = presets.laptop()
    behaviour = replace(laptop.behaviour, temporal="gru", temperature=0.07)
    assert call(*AS_OF, *given).chosen == replace(laptop, behaviour=behaviour)
    learnt = replace(laptop, behaviour=replace(behaviour, learn_temperature=True))
    assert call(*AS_OF, *given, "--learn-temperature").chosen == learnt


def test_a_language_model_brings_its_width_where_the_space_is_its_own(
    call: Callable[..., Any], tiny_qwen2: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(tiny_qwen2).parent)
    best, laptop = (
        call(*AS_OF, "--preset", name, "--language-model", Path(tiny_qwen2).name).chosen
        for name in ("best", "laptop")
    )
    text = replace(presets.best().text, model=tiny_qwen2, dim=16)
    habits = replace(presets.best().habits, width=16)
    assert best == replace(presets.best(), text=text, habits=habits)
    text = replace(presets.laptop().text, model=tiny_qwen2)  # mapped to the preset's width
    assert laptop == replace(presets.laptop(), text=text)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--temporal", "lstm"), "--temporal: .*'transformer' or 'gru'"),
        (("--temperature", "0"), "--temperature: .*greater than 0"),
        (("--temperature", "nan"), "--temperature: .*finite"),
        (("--language-model", "no/where"), "language model 'no/where' .*`hf download no/where`"),
    ],
)
def test_a_wrong_alternative_is_one_line_that_names_it(
    given: tuple[str, str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    command = ["pipeline", *AS_OF, "--workspace", str(tmp_path), *given]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        pipeline.main(Pipeline, pipeline.run)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
    assert not list(tmp_path.iterdir())  # refused before anything is made


def test_a_gru_forecasts_at_a_temperature_that_is_learnt(copy: Any) -> None:
    record = copy.train("behaviour", temporal="gru", temperature=0.07, learn_temperature=True)
    model, _ = checkpoint.load(copy.workspace.root / record["checkpoint"], expect="behaviour")
    assert isinstance(model, BehaviourEncoder)
    assert isinstance(model.temporal, torch.nn.GRU)
    assert model.log_temperature.exp().item() not in (1.0, pytest.approx(0.07, rel=1e-6))


def test_another_language_model_trains_embeds_and_answers(
    copy: Any, bench: ModuleType, tiny_qwen2: str
) -> None:
    """A true decoder in the text tower, its adapters tuned, with encoders trained before."""
    starts = list(copy.start().values())
    other = copy.checkpoint("alignment")
    record = copy.train("alignment", language_model=tiny_qwen2, from_=starts)
    directory = copy.workspace.root / record["checkpoint"]
    model, _ = checkpoint.load(directory, expect="alignment")
    assert isinstance(model, FoundModel)
    assert model.text.causal and model.config.text.dim == 16
    tuned = {name for name, p in model.text.named_parameters() if "lora_B" in name and p.any()}
    assert {name.split(".lora_B")[0].rsplit(".", 1)[-1] for name in tuned} == {"q_proj", "v_proj"}
    snapshot = embed(copy.workspace, copy.dataset, directory, [bench.AS_OF])["snapshot"]
    fused = copy.matrix("fused", snapshot)
    query = QueryEncoder.open(directory).encode(["will buy cheese in the next two weeks"])
    assert np.ptp(fused @ query[0]) > 0
    with pytest.raises(InputError, match=f"--language-model {re.escape(tiny_qwen2)}"):
        copy.train("alignment", from_=[str(directory)])
    with pytest.raises(InputError, match=f"--language-model {MINILM}"):
        copy.train("alignment", language_model=tiny_qwen2, from_=[str(other)])


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory, spell: Callable[..., int]) -> str:
    """Directory of a random one-layer Qwen2 that reads letter by letter."""
    directory = tmp_path_factory.mktemp("models") / "qwen2"
    num_signs = spell(directory, eos_token="<end>", pad_token="<end>")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=num_signs, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=1, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    Qwen2Model(config).save_pretrained(directory)
    return str(directory)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Settings of ``python -m ray_jobs.pipeline`` with these arguments."""

    def run(*arguments: str) -> Any:
        got: list[Any] = []
        monkeypatch.setattr("sys.argv", ["pipeline", *arguments])
        pipeline.main(Pipeline, got.append)
        return got[0]

    return run


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"modalities": ("behaviour", "smell")}, "modalities.*smell"),
        ({"modalities": ()}, "modalities: expected at least one"),
        ({"objectives": ("nsp",)}, "objectives.*forecast.*nsp"),
        ({"fusion": "sum"}, "fusion: expected one of.*'sum'"),
        ({"text_period": "past"}, "text_period.*same.*'past'"),
    ],
)
def test_a_switch_that_is_unknown_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        replace(presets.best(), **changes)


def test_outcomes_weigh_the_same_however_many_workers_ask(spec_of: Callable) -> None:
    """Every worker asks for all of them, so each one's share is smaller."""
    alone, one_of_two = (
        objectives.build(spec_of(), world).batch(0, 0, 8).weight_S[-1] for world in (1, 2)
    )
    assert one_of_two == alone / 2
