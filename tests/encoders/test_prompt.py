"""Prompt tuning: eq. 16, what it may change, and that it does what the seeds say."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from encoders import losses
from encoders.alignment import FoundModel
from encoders.prompt import (
    PAPER,
    Prompt,
    TuneConfig,
    _first_tokens,
    _Prefixed,
    tune,
    tune_many,
)

TEXT = "will buy tea in the next four weeks"
TOKENS = TuneConfig(method="tokens", steps=25, num_tokens=3, learning_rate=0.05, anchor=0.01)


@pytest.fixture(scope="module")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: str) -> str:
    """Directory of a random Qwen2 with the letters of the tiny BERT's tokenizer."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

    directory = tmp_path_factory.mktemp("models") / "qwen"
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(directory)
    torch.manual_seed(1)
    Qwen2Model(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, initializer_range=0.1,
        )
    ).save_pretrained(directory)  # fmt: skip
    return str(directory)


@pytest.fixture(params=["bert", "decoder"])
def model(request: Any, tiny_config: Callable, jolt: Callable, tiny_decoder: str) -> FoundModel:
    config = tiny_config(search=None, tabular=None)
    if request.param == "decoder":
        config = replace(config, text=replace(config.text, model=tiny_decoder))
    model = FoundModel(config).eval()
    jolt(model)
    return model


@pytest.fixture
def users() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((60, 6)).astype(np.float32) * 4 + 1


def seeds(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Users who differ in coordinate 1, which the sentence knows nothing about."""
    order = users[:, 1].argsort()
    return users[order[-5:]], users[order[:5]]


# --- eq. 16


def test_the_triplet_loss_is_equation_16() -> None:
    rng = np.random.default_rng(0)
    query, positives, negatives = (rng.standard_normal(s) for s in ((4,), (3, 4), (5, 4)))
    slow = sum(
        max(0.0, ((query - p) ** 2).sum() - ((query - n) ** 2).sum() + 0.7)
        for p in positives
        for n in negatives
    )
    tensors = [torch.tensor(each) for each in (query, positives, negatives)]
    assert losses.triplet(*tensors, margin=0.7).item() == pytest.approx(slow)
    both = losses.triplet(*(torch.stack([each, each]) for each in tensors), margin=0.7)
    assert both.tolist() == pytest.approx([slow, slow])


def test_the_triplet_loss_rests_when_all_are_apart_and_does_not_care_where() -> None:
    query, near, far = torch.zeros(2), torch.tensor([[0.1, 0.0]]), torch.tensor([[0.0, 9.0]])
    assert losses.triplet(query, near, far, margin=1.0).item() == 0.0
    swapped = losses.triplet(query, far, near, margin=1.0)
    shifted = losses.triplet(query + 5, far + 5, near + 5, margin=1.0)
    assert swapped.item() == pytest.approx(81 - 0.01 + 1, rel=1e-5)
    assert shifted.item() == pytest.approx(swapped.item(), rel=1e-4)


# --- tokens


def test_seeds_are_told_apart_better_than_by_the_sentence(
    model: FoundModel, users: np.ndarray
) -> None:
    positives, negatives = seeds(users)
    zero_shot = model.encode_text([TEXT])[0].numpy()

    def gap(query: np.ndarray) -> float:
        return float((positives @ query).mean() - (negatives @ query).mean())

    for config in (TOKENS, TuneConfig()):
        prompt = tune(model, TEXT, positives, negatives, users, config)
        assert gap(prompt.query_D) > gap(zero_shot)
        assert np.linalg.norm(prompt.query_D) == pytest.approx(1.0, abs=1e-4)


def said(model: FoundModel, text: str, tokens_TE: np.ndarray) -> np.ndarray:
    """The query of a sentence behind tokens."""
    with torch.no_grad():
        return _Prefixed(model, [text])(torch.from_numpy(tokens_TE)[None])[0].numpy()


def test_the_query_is_what_the_tokens_say(model: FoundModel, users: np.ndarray) -> None:
    prompt = tune(model, TEXT, *seeds(users), users, TOKENS)
    assert prompt.tokens_TE.shape == (3, 16)
    again = said(model, TEXT, prompt.tokens_TE)
    np.testing.assert_allclose(again, prompt.query_D, atol=1e-6)
    other = said(model, "cheese", prompt.tokens_TE)
    assert np.abs(other - prompt.query_D).max() > 1e-3


@pytest.mark.parametrize("config", [TOKENS, replace(PAPER, steps=3), TuneConfig()])
def test_tuning_changes_no_weight_and_repeats_to_the_bit(
    model: FoundModel, users: np.ndarray, config: TuneConfig
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    needed = [p.requires_grad for p in model.parameters()]
    torch.manual_seed(1)
    one = tune(model, TEXT, *seeds(users), users, config)
    torch.manual_seed(2)
    other = tune(model, TEXT, *seeds(users), users, config)
    np.testing.assert_array_equal(one.query_D, other.query_D)
    np.testing.assert_array_equal(one.tokens_TE, other.tokens_TE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == needed
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_anchor_holds_the_query_at_the_sentence(model: FoundModel, users: np.ndarray) -> None:
    zero_shot = model.encode_text([TEXT])[0].numpy()

    def away(anchor: float) -> float:
        prompt = tune(model, TEXT, *seeds(users), users, replace(TOKENS, anchor=anchor))
        return float(np.linalg.norm(prompt.query_D - zero_shot))

    assert away(100.0) < away(0.0)


def test_prompts_tuned_together_are_those_tuned_alone(model: FoundModel, users: np.ndarray) -> None:
    texts = [TEXT, "cheese"]
    pairs = [seeds(users), (users[:5], users[5:10])]
    together = tune_many(
        model, texts, np.stack([p for p, _ in pairs]), np.stack([n for _, n in pairs]), users,
        replace(TOKENS, steps=5),
    )  # fmt: skip
    for text, (positives, negatives), prompt in zip(texts, pairs, together, strict=True):
        alone = tune(model, text, positives, negatives, users, replace(TOKENS, steps=5))
        np.testing.assert_allclose(prompt.query_D, alone.query_D, atol=1e-4)


# --- geometry


def test_on_the_sphere_nearer_means_higher_score(users: np.ndarray) -> None:
    from encoders.prompt import _Sphere

    query = np.random.default_rng(5).standard_normal(6).astype(np.float32)
    query /= np.linalg.norm(query)
    placed = _Sphere(users)(users).numpy()
    away = ((placed - np.append(query, 0)) ** 2).sum(1)
    np.testing.assert_array_equal(np.argsort(away), np.argsort(-(users @ query)))
    plain = ((users - query) ** 2).sum(1)
    assert (np.argsort(plain) != np.argsort(-(users @ query))).any()  # hence the sphere


def test_only_the_hardest_negatives_count(model: FoundModel, users: np.ndarray) -> None:
    zero_shot = model.encode_text([TEXT])[0].numpy()
    order = np.argsort(-(users @ zero_shot))
    positives, hard, easy = users[order[20:25]], users[order[:3]], users[order[-8:]]
    config = replace(TOKENS, hardest=3, steps=1)
    both = tune(model, TEXT, positives, np.concatenate([easy, hard]), users, config)
    alone = tune(model, TEXT, positives, hard, users, config)
    np.testing.assert_allclose(both.query_D, alone.query_D, atol=1e-6)


def test_the_letter_sums_over_all_pairs_of_seeds(model: FoundModel, users: np.ndarray) -> None:
    positives, negatives = users[:5], users[5:13]
    config = replace(PAPER, steps=3, num_tokens=3)
    unit = [torch.tensor(u / np.linalg.norm(u)) for u in (*positives, *negatives)]
    tokens = _first_tokens(model.text, config)[None].requires_grad_()
    optimiser = torch.optim.Adam([tokens], lr=config.learning_rate)
    for _ in range(config.steps):
        query = _Prefixed(model, [TEXT])(tokens)[0]
        near, far = ([(query - u).square().sum() for u in us] for us in (unit[:5], unit[5:]))
        pairs = [(p - n + config.margin).clamp(min=0) for p in near for n in far]
        (tokens.grad,) = torch.autograd.grad(torch.stack(pairs).mean(), [tokens])
        optimiser.step()

    def learnt(config: TuneConfig) -> np.ndarray:
        return tune(model, TEXT, positives, negatives, users, config).tokens_TE

    np.testing.assert_allclose(learnt(config), tokens[0].detach(), atol=1e-4)
    assert np.abs(learnt(replace(config, hardest=5)) - learnt(config)).max() > 1e-3


# --- mistakes, and speed


def test_learning_can_be_stopped_at_a_step(model: FoundModel, users: np.ndarray) -> None:
    steps: list[int] = []

    def stop() -> None:
        steps.append(1)
        if len(steps) == 3:
            raise TimeoutError

    tune(model, TEXT, *seeds(users), users, each_step=stop)
    assert not steps, "the posterior learns nothing"
    tune(model, TEXT, *seeds(users), users, replace(TOKENS, steps=2), each_step=stop)
    with pytest.raises(TimeoutError):
        tune(model, TEXT, *seeds(users), users, TOKENS, each_step=stop)
    assert len(steps) == 3


def test_mistakes_are_named(model: FoundModel, users: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"positives: expected at least one vector of 6 .*\[0, 6"):
        tune(model, TEXT, users[:0], users[:5], users)
    with pytest.raises(ValueError, match=r"negatives: .*\[5, 4\]"):
        tune(model, TEXT, users[:5], users[:5, :4], users)
    with pytest.raises(ValueError, match="method"):
        TuneConfig(method="guess")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="geometry"):
        TuneConfig(geometry="flat")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps"):
        TuneConfig(steps=0)
    with pytest.raises(ValueError, match="hardest must be at least 1, got 0"):
        TuneConfig(hardest=0)


def test_the_real_language_model_tunes_in_seconds(
    tiny_config: Callable, shared_minilm: None, users: np.ndarray
) -> None:
    config = tiny_config(search=None, tabular=None)
    model = FoundModel(replace(config, text=replace(config.text, model="all-MiniLM-L6-v2"))).eval()
    start = time.process_time()  # other work on the machine does not count
    prompt = tune(model, TEXT, *seeds(users), users, TuneConfig(method="tokens"))
    assert isinstance(prompt, Prompt) and prompt.tokens_TE.shape == (8, 384)
    assert time.process_time() - start < 6.0
