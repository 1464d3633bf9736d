"""The whole model: its space, its configuration, and that sentences find their users."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders import checkpoint, losses
from encoders.alignment import AlignmentConfig, FoundModel
from encoders.batch import Collate, UserBatch
from encoders.habits import HabitConfig
from encoders.history import History
from encoders.outlook import OutlookConfig
from encoders.pairs import FactTable, PairBatch, PairSampler
from encoders.templates import sentence
from encoders.text import TextConfig

SENTENCES = ["people who buy apples", "bread", "will buy cheese in the next four weeks"]


@pytest.fixture
def pairs(world: Any) -> PairBatch:
    generator = torch.Generator().manual_seed(4)
    rows = np.arange(0, len(world.rows), 3)
    fits = torch.rand(len(rows), len(SENTENCES), generator=generator) < 0.4
    label_BS, weight_S = fits.to(torch.int8), torch.ones(len(SENTENCES))
    return PairBatch(world.collate()(rows), {}, label_BS, weight_S)


def with_tokens(batch: PairBatch, model: FoundModel, *, pooled: bool = False) -> PairBatch:
    tokens = model.text.tokenize(SENTENCES)
    if pooled:
        with torch.no_grad():
            hidden = model.text.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        tokens = {"pooled": torch.nn.functional.normalize(mean, dim=-1)}
    return replace(batch, tokens=tokens)


def test_configuration_survives_json(tiny_config: Callable) -> None:
    for config in (tiny_config(), tiny_config(tabular=None, search=None, similarity="cosine")):
        stored = json.loads(json.dumps(asdict(config)))
        back = AlignmentConfig(**stored)
        assert json.loads(json.dumps(asdict(back))) == stored
        assert back.behaviour == config.behaviour
        assert back.search == config.search
        assert back.text == config.text
        assert (back.tabular and back.tabular.columns) == (
            config.tabular and config.tabular.columns
        )


def test_a_fixed_temperature_is_no_weight(tiny_config: Callable, pairs: PairBatch) -> None:
    model = FoundModel(tiny_config(similarity="cosine", temperature=1.0, learn_temperature=False))
    before = model.log_scale.item()
    assert before == 0.0  # eq. 15 has cosines as they are
    assert "log_scale" not in step(model.eval(), with_tokens(pairs, model))
    assert model.log_scale.item() == before


def test_one_way_alignment_contrasts_users_only(tiny_config: Callable, pairs: PairBatch) -> None:
    model = FoundModel(tiny_config(symmetric=False, temperature=1.0)).eval()
    batch = with_tokens(pairs, model)
    logits = model(batch.users) @ model.encode_text(SENTENCES).T
    expected = losses.alignment(logits, batch.label_BS > 0, symmetric=False)
    torch.testing.assert_close(model.loss(batch)[0], expected)


@pytest.mark.parametrize("kept", [("tabular",), ("search", "behaviour")])
def test_modalities_can_be_left_out(
    world: Any, tiny_config: Callable, kept: tuple[str, ...]
) -> None:
    gone = {name: None for name in ("behaviour", "tabular", "search") if name not in kept}
    model = FoundModel(tiny_config(**gone)).eval()
    batch = world.collate()(np.arange(len(world.rows)))
    assert {*model.modalities(batch)} == {*kept}
    model.start_aligned()  # nothing to do, and no error
    if kept == ("tabular",):
        noise = replace(batch, lines_VE=torch.randn_like(batch.lines_VE))
        torch.testing.assert_close(model(noise), model(batch))


def test_a_model_of_nothing_is_refused(tiny_config: Callable) -> None:
    with pytest.raises(ValueError, match="at least one of behaviour, tabular and search"):
        tiny_config(behaviour=None, tabular=None, search=None)


def test_windows_that_the_encoder_does_not_have_are_refused(tiny_config: Callable) -> None:
    with pytest.raises(ValueError, match="windows=9 must be at most behaviour.windows=4"):
        tiny_config(windows=9)


def test_another_fusion_is_refused() -> None:
    with pytest.raises(ValueError, match="fusion must be 'attention' or 'concatenation'"):
        AlignmentConfig(fusion="sum")  # type: ignore[arg-type]


def test_another_start_of_fusion_is_refused() -> None:
    with pytest.raises(ValueError, match="fusion_start must be 'random' or 'even', got 'cold'"):
        AlignmentConfig(fusion_start="cold")  # type: ignore[arg-type]


@pytest.mark.parametrize("fusion", ["attention", "concatenation"])
def test_an_even_fusion_learns_its_moments_from_users_and_keeps_them(
    fusion: str, world: Any, tiny_config: Callable
) -> None:
    model = FoundModel(tiny_config(fusion=fusion, fusion_start="even")).eval()
    collate, rows = world.collate(), np.arange(len(world.rows))
    batch = collate(rows)
    model.start_even(collate(part) for part in np.array_split(rows, 3))
    for m, (name, vector_BD) in enumerate(model.modalities(batch).items()):
        there = vector_BD[batch.present_BM[:, ["behaviour", "tabular", "search"].index(name)]]
        torch.testing.assert_close(model.fusion.centre[m].mean_D, there.mean(0))
    again = FoundModel(tiny_config(fusion=fusion, fusion_start="even")).eval()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(batch), model(batch))


def test_half_precision_does_not_round_the_cosines(tiny_config: Callable, pairs: PairBatch) -> None:
    """Scores of a softmax that differ by less than 1/256 still differ."""
    model = FoundModel(tiny_config(similarity="cosine", temperature=1.0)).eval()
    batch = with_tokens(pairs, model)
    with torch.no_grad():
        exact = model.loss(batch)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model.loss(batch)[0]
    assert half.dtype == torch.float32
    assert half != half.bfloat16().float(), "not a value that bfloat16 can hold"
    torch.testing.assert_close(half, exact, atol=2e-2, rtol=0)


def test_another_similarity_is_refused() -> None:
    with pytest.raises(ValueError, match="similarity must be 'dot' or 'cosine', got 'euclid'"):
        AlignmentConfig(similarity="euclid")  # type: ignore[arg-type]


def test_cosine_gives_unit_users_and_dot_keeps_their_length(
    world: Any, tiny_config: Callable
) -> None:
    batch = world.collate()(np.arange(len(world.rows)))
    vectors = {}
    for similarity in ("cosine", "dot"):
        torch.manual_seed(3)
        model = FoundModel(tiny_config(similarity=similarity)).eval()
        vectors[similarity] = model(batch)
        torch.testing.assert_close(model.encode_text(SENTENCES).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(vectors["cosine"].norm(dim=1), torch.ones(len(world.rows)))
    assert vectors["dot"].norm(dim=1).std() > 1e-3
    torch.testing.assert_close(
        torch.nn.functional.normalize(vectors["dot"], dim=1), vectors["cosine"]
    )


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_loss_is_infonce_of_scaled_inner_products(
    tiny_config: Callable, pairs: PairBatch, similarity: str
) -> None:
    model = FoundModel(tiny_config(similarity=similarity, temperature=0.25)).eval()
    batch = with_tokens(pairs, model)
    total, parts = model.loss(batch)
    users, texts = model(batch.users), model.encode_text(SENTENCES)
    logits = torch.tensor([[(u @ t).item() / 0.25 for t in texts] for u in users])
    expected = losses.alignment(logits, batch.label_BS > 0)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    assert parts["scale"].item() == pytest.approx(4.0, rel=1e-6)


def test_a_users_fused_vector_ignores_a_modality_they_lack(
    world: Any, tiny_config: Callable
) -> None:
    model = FoundModel(tiny_config()).eval()
    batch = world.collate()(np.arange(len(world.rows)))
    lacking = ~batch.present_BM[:, 2]
    assert lacking.any()
    assert not lacking.all()
    noise = torch.randint(1_000, 1_200, batch.tokens_BL.shape)
    with torch.no_grad():
        before, after = model(batch), model(replace(batch, tokens_BL=noise))
    assert torch.equal(after[lacking], before[lacking])
    assert (after[~lacking] - before[~lacking]).abs().amax(1).min() > 1e-5


def test_modalities_are_matched_with_presence_by_name(world: Any, tiny_config: Callable) -> None:
    """A model without the tabular encoder must read the third column of presence for searches."""
    model = FoundModel(tiny_config(tabular=None)).eval()
    batch = world.collate()(np.arange(len(world.rows)))
    vectors = model.modalities(batch)
    assert list(vectors) == ["behaviour", "search"]
    fused = model.fuse(vectors, batch)
    expected = model.fusion(list(vectors.values()), batch.present_BM[:, [0, 2]])
    assert torch.equal(fused, expected)
    only_tabular = replace(batch, present_BM=torch.tensor([[False, True, False]] * len(batch)))
    torch.testing.assert_close(
        model(only_tabular), model.fusion.out(model.fusion.cold_D).expand(len(batch), -1)
    )


def test_both_sides_can_start_with_one_projection(tiny_config: Callable) -> None:
    config = tiny_config(tabular=None, search=None)
    even = replace(
        config, behaviour=replace(config.behaviour, line_width=16, dim=6), fusion_dim=6
    )  # fmt: skip
    x = torch.randn(5, 16)
    model = FoundModel(even)
    model.start_aligned()
    lines, words = model.behaviour.sources["bill"].linear, model.text.project.linear
    torch.testing.assert_close(lines(x) - lines.bias, words(x) - words.bias)
    torch.testing.assert_close(model.fusion.out(x[:, :6]) - model.fusion.out.bias, x[:, :6])
    words.weight.data.zero_()
    assert lines.weight.abs().sum() > 0  # copied, not shared
    uneven = FoundModel(config)
    before = {name: tensor.clone() for name, tensor in uneven.state_dict().items()}
    uneven.start_aligned()
    assert all(torch.equal(tensor, before[n]) for n, tensor in uneven.state_dict().items())


def step(model: FoundModel, batch: PairBatch) -> set[str]:
    """Names of the parameters that one optimiser step changed."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0)
    model.loss(batch)[0].backward()
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("tuned", [True, False])
def test_a_step_changes_lora_only_when_the_text_is_tuned(
    tiny_config: Callable, pairs: PairBatch, jolt: Callable, tuned: bool
) -> None:
    model = FoundModel(tiny_config()).eval()
    jolt(model)  # at the start LoRA's B is zero and A has no gradient
    changed = step(model, with_tokens(pairs, model, pooled=not tuned))
    language = {n for n, _ in model.named_parameters() if n.startswith("text.model.")}
    lora = {name for name in language if "lora_" in name}
    assert len(lora) == 4
    assert changed & language == (lora if tuned else set())
    assert "text.project.linear.weight" in changed
    assert "log_scale" in changed
    for modality in ("behaviour", "tabular", "search", "fusion"):
        assert any(name.startswith(f"{modality}.") for name in changed)


def test_heads_of_the_pretraining_are_frozen_and_everything_else_learns(
    tiny_config: Callable, pairs: PairBatch
) -> None:
    model = FoundModel(tiny_config()).eval()
    heads = {
        id(p) for e in (model.tabular, model.search) for p in e.objective_parameters()
    }  # fmt: skip
    model.loss(with_tokens(pairs, model))[0].backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("text.model."):
            assert parameter.requires_grad == (id(parameter) not in heads), name
    unused = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    # Nobody in this world uses mini-programs; these are all that DDP may find unused.
    assert {name.split(".")[2] for name in unused if "sources" in name} == {"mini_program"}
    assert {name for name in unused if "sources" not in name} == set()


def planted(make_world: Callable, facts_table: Callable, micros_of: Callable) -> tuple[Any, Any]:
    """A world whose users go on buying the one thing they always bought."""
    things = ["apples", "bread", "cheese"]
    world = make_world(num_users=24, weeks=4, seed=1)
    rows, facts = [], []
    for row in world.rows:
        thing = things[int(row["user_id"][1:]) % 3]
        bills = {"bills": [thing], "bill_counts": [2.0], "clicks": [], "click_counts": []}
        rows.append(row | bills)
        if row["event_timestamp"] == world.end:
            facts.append(
                {"user_id": row["user_id"], "cutoff": world.end, "kind": "purchase",
                 "subject": thing.upper(), "level": 1, "count": 1.0, "amount": 30.0}
            )  # fmt: skip
    users = [fact["user_id"] for fact in facts]
    times = np.full(len(users), micros_of(world.end))
    table = FactTable(facts_table(facts), users, times)
    collate = world.collate(rows=rows)
    return (collate, table, collate.history.rows(users, times.tolist())), facts


def pooled_words(texts: list[str]) -> dict[str, Tensor]:
    """Stands for a good language model: a sentence is the mean of its words' random vectors."""
    words = [[word.strip(".,").lower() for word in text.split()] for text in texts]
    rows = [
        np.mean([np.random.default_rng(list(w.encode())).standard_normal(16) for w in row], 0)
        for row in words
    ]
    return {"pooled": torch.nn.functional.normalize(torch.tensor(np.stack(rows)).float(), dim=1)}


def test_sentences_find_the_users_who_will_buy(
    make_world: Callable, facts_table: Callable, micros_of: Callable, tiny_config: Callable
) -> None:
    (collate, table, rows), facts = planted(make_world, facts_table, micros_of)
    config = tiny_config(tabular=None, search=None, dropout=0.0)
    config = replace(config, behaviour=replace(config.behaviour, dropout=0.0))
    model = FoundModel(config)
    sampler = PairSampler(collate, table, rows, pooled_words, num_sentences=3, horizon_days=28)
    rng = np.random.default_rng(0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    history = []
    for _ in range(120):
        loss, _ = model.loss(sampler(rng.choice(24, 16, replace=False), rng))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-10:]) < 0.35 * np.mean(history[:5])
    model.eval()
    with torch.no_grad():
        users = model(collate(rows))
        queries = model.sentences(
            pooled_words([f"people who buy {thing}" for thing in ("apples", "bread", "cheese")])
        )
    for thing, query in zip(("APPLES", "BREAD", "CHEESE"), queries, strict=True):
        buyers = torch.tensor([fact["subject"] == thing for fact in facts])
        assert auc(users @ query, buyers) > 0.95


def auc(scores: Tensor, positive: Tensor) -> float:
    wins = scores[positive][:, None] > scores[~positive][None, :]
    return wins.double().mean().item()


def test_encoding_text_leaves_no_graph(tiny_config: Callable) -> None:
    model = FoundModel(tiny_config()).eval()
    vectors = model.encode_text([sentence("purchase", ["tea"])])
    assert not vectors.requires_grad
    torch.testing.assert_close(
        vectors, model.sentences(model.text.tokenize([sentence("purchase", ["tea"])]))
    )
    assert model.dim == vectors.shape[1] == 6


def test_windows_of_a_year_ago_are_out_of_reach(
    make_world: Callable, tiny_config: Callable, micros_of: Callable
) -> None:
    """A sample sees as many windows as the model has, the latest ones."""
    world = make_world(num_users=1, weeks=9, seed=2)
    collate = world.collate(windows=4)
    model = FoundModel(tiny_config()).eval()
    changed = [
        row | {"bills": ["candles"], "bill_counts": [3.0]}
        if row["event_timestamp"] <= world.end - timedelta(weeks=4)
        else row
        for row in world.rows
    ]
    rows = collate.history.rows(["u0"], [micros_of(world.end)])
    other = world.collate(windows=4, rows=changed)
    with torch.no_grad():
        assert torch.equal(model(other(rows)), model(collate(rows)))
        assert not torch.equal(model(other(rows - 1)), model(collate(rows - 1)))


# --- habits and intents


@pytest.fixture
def with_habits(tiny_config: Callable, tiny_bert: str, world: Any) -> AlignmentConfig:
    text = TextConfig(
        model=tiny_bert, dim=16, projection="near_identity", rank=3, lora_rank=2, max_tokens=40
    )
    columns = world.columns()
    habits = HabitConfig(
        width=16, ways=2, hidden=4, rank=2, dropout=0.0, windows=4,
        profile_width=len(columns.scales), profile_sizes=tuple(columns.cardinalities),
    )  # fmt: skip
    return tiny_config(text=text, habits=habits, objective="intents", temperature=1.0)


def batch_with_habits(world: Any, vector_of: Callable) -> UserBatch:
    def sentences(texts: list[str]) -> np.ndarray:
        return pooled_words(texts)["pooled"].numpy()

    views = [world.table(view) for view in ("behaviour", "profile", "search")]
    history = History(*views, vector_of, world.table("habits"), sentences)
    collate = Collate(history, windows=4, table=world.columns(), habit_windows=4)
    return collate(np.arange(0, len(world.rows), 3))


def test_an_outlook_adds_axes_that_its_sentence_reads_and_the_checkpoint_keeps_them(
    with_habits: AlignmentConfig,
    world: Any,
    vector_of: Callable,
    info_of: Callable,
    tmp_path: Path,
) -> None:
    room = OutlookConfig(trees=1, leaves=2, depth=1)
    model = FoundModel(replace(with_habits, outlook=room)).eval()
    batch, J = batch_with_habits(world, vector_of), with_habits.text.dim
    sentence, other = "will not shop at all in the next two weeks", "will buy bread"
    plain = model.encode_text([sentence, other])
    assert model.asked_dim == J
    joint_BJ, totals_BF = model.joint(model.modalities(batch), batch), model.totals(batch)
    tree = {"decision_type": "<=", "split_feature": 0, "threshold": totals_BF[:, 0].median().item(),
            "left_child": {"leaf_value": -1.0}, "right_child": {"leaf_value": 1.0}}  # fmt: skip
    for _ in range(2):  # learning once more starts from no axes again
        model.learn_outlook(replace(room, sentences=(sentence,)), [[tree]], totals_BF, joint_BJ)
    assert model.asked_dim == J + 1 and model.dim == plain.shape[1] + 1
    asked = model.encode_text([sentence, other])
    assert float(asked[0, J]) > 0 and not asked[1, J:].any() and not asked[:, J + 1 :].any()
    torch.testing.assert_close(asked[1, :J], plain[1, :J])
    fused_BD = model(batch)
    torch.testing.assert_close(fused_BD[:, :J], joint_BJ)
    assert len(fused_BD[:, J].unique()) == 2
    checkpoint.save(tmp_path / "kept", model, info_of("alignment", model.config))
    again, _ = checkpoint.load(tmp_path / "kept")
    assert isinstance(again, FoundModel)
    torch.testing.assert_close(again(batch), fused_BD)
    torch.testing.assert_close(again.encode_text([sentence]), asked[:1])


def test_the_loss_of_intents_is_fit_and_order(
    with_habits: AlignmentConfig, world: Any, vector_of: Callable, jolt: Callable, pairs: PairBatch
) -> None:
    model = FoundModel(with_habits).eval()
    jolt(model)
    label_BS = pairs.label_BS.clone()
    label_BS[::3, 1] = -1
    weight_S = torch.tensor([1.0, 4.0, 2.0])
    users = batch_with_habits(world, vector_of)
    batch = with_tokens(PairBatch(users, {}, label_BS, weight_S), model)
    total, parts = model.loss(batch)
    with torch.no_grad():
        score_BS = model(users) @ model.encode_text(SENTENCES).T
        fit, order = losses.intents(
            score_BS * model.log_scale.exp(), label_BS=label_BS, weight_S=weight_S,
            base_rate_S=model.base_rate(model.text.read(batch.tokens))[:, 0],
            fit_scale=model.fit_scale.exp(),
        )  # fmt: skip
    assert (parts["fit"].item(), parts["order"].item()) == pytest.approx(
        (fit.item(), order.item()), rel=1e-4
    )
    assert total.item() == pytest.approx(fit.item() + 0.2 * order.item(), rel=1e-4)
    total.backward()
    unused = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not [name for name in unused if name.split(".")[0] in ("habits", "base_rate", "text")]


def test_at_the_start_habits_alone_speak(
    with_habits: AlignmentConfig, world: Any, vector_of: Callable
) -> None:
    model = FoundModel(with_habits).eval()
    model.start_aligned()
    batch = batch_with_habits(world, vector_of)
    assert batch.habits is not None
    model.habits.fit(batch.habits)
    with torch.no_grad():
        whitened = model.text.whiten(batch.habits.subjects_VE)
        alone = model.habits(batch.habits, whitened, batch.values_BF, batch.codes_BC)
        assert torch.equal(model(batch), alone) and alone.abs().max() > 0
        assert model(replace(batch, habits=None)).abs().max() == 0


def test_a_model_with_habits_survives_json(with_habits: AlignmentConfig) -> None:
    stored = json.loads(json.dumps(asdict(with_habits)))
    assert AlignmentConfig(**stored).habits == with_habits.habits


def test_habits_are_as_wide_as_sentences(with_habits: AlignmentConfig) -> None:
    with pytest.raises(ValueError, match="habits.width=9 must be text.dim=16"):
        replace(with_habits, habits=HabitConfig(width=9))
    with pytest.raises(ValueError, match="objective must be 'infonce' or 'intents', got 'rank'"):
        replace(with_habits, objective="rank")
