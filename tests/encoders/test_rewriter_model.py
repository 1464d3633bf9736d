"""The rewriter's language model: a tiny random Llama that learns to answer."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from encoders import checkpoint
from encoders.language_model import WeightsMissing, load_decoder
from encoders.rewriter_model import RewriterConfig, RewriterModel

TURN = ("people who like brie", "will buy cheese")


@pytest.fixture
def config(tiny_llama: str) -> RewriterConfig:
    return RewriterConfig(model=tiny_llama, lora_rank=4, lora_alpha=8, max_tokens=80)


def test_only_answers_are_learnt(config: RewriterConfig) -> None:
    model = RewriterModel(config)
    one = model.dialogues([[TURN]])
    learnt = one.target_NL[0][one.target_NL[0] != -100]
    said = model.tokenizer.decode(learnt, skip_special_tokens=True)
    assert said.replace(" ", "") == "willbuycheese"
    assert learnt[-1] == model.tokenizer.eos_token_id
    torch.testing.assert_close(one.target_NL[one.target_NL != -100], one.ids_NL[0][-len(learnt) :])


def test_padding_and_neighbours_do_not_change_the_loss(config: RewriterConfig) -> None:
    model = RewriterModel(config).eval()
    long = [("who wants a rather long list of things?", "will buy bread"), TURN]
    one, other = model.dialogues([[TURN]]), model.dialogues([long])
    both = model.dialogues([[TURN], long])
    assert both.mask_NL.sum() == one.mask_NL.sum() + other.mask_NL.sum()
    with torch.no_grad():
        tokens = [int((each.target_NL != -100).sum()) for each in (one, other)]
        parts = [model.loss(each)[0] for each in (one, other)]
        together = model.loss(both)[0]
    expected = (parts[0] * tokens[0] + parts[1] * tokens[1]) / sum(tokens)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)


def test_a_dialogue_is_cut_at_its_limit(tiny_llama: str) -> None:
    model = RewriterModel(RewriterConfig(model=tiny_llama, max_tokens=10))
    assert model.dialogues([[TURN] * 5]).ids_NL.shape == (1, 10)


def test_it_learns_and_answers_greedily_and_comes_back_from_disk(
    config: RewriterConfig, tmp_path: Path, info_of: Callable
) -> None:
    torch.manual_seed(0)
    model = RewriterModel(config)
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert 0 < sum(p.numel() for p in trainable) < 0.5 * sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(trainable, lr=3e-2)
    batch, losses = model.dialogues([[TURN]]), []
    for _ in range(100):
        total, named = model.loss(batch)
        assert named["answer"] is total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0] - 0.5
    answer = model.eval().answer(TURN[0])
    assert answer == model.answer("  people   who like brie ")

    checkpoint.save(tmp_path / "r", model, info_of("rewriter", config))
    kept = load_file(tmp_path / "r" / "model.safetensors")
    assert kept and all("lora_" in name for name in kept)
    again, _ = checkpoint.load(tmp_path / "r", expect="rewriter")
    assert isinstance(again, RewriterModel)
    assert again.answer(TURN[0]) == answer


def test_missing_weights_say_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="expected 'SmolLM2-135M-Instruct', a dir"):
        load_decoder(str(tmp_path / "nowhere"))


def test_gpt2_is_tuned_as_well(
    tmp_path: Path, spell: Callable[..., int], info_of: Callable
) -> None:
    """Its attention has one matrix for queries, keys and values, and keeps it turned round."""
    from transformers import GPT2Config, GPT2LMHeadModel

    num_signs = spell(tmp_path / "gpt2", eos_token="<end>")
    ends = {"bos_token_id": 1, "eos_token_id": 1}
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
    GPT2LMHeadModel(GPT2Config(vocab_size=num_signs, **ends, **sizes)).save_pretrained(
        tmp_path / "gpt2"
    )
    config = RewriterConfig(model=str(tmp_path / "gpt2"), lora_rank=4, lora_alpha=8)
    model = RewriterModel(config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    batch = model.dialogues([[TURN]])
    first = model.loss(batch)[0].item()
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(batch)[0].backward()
        optimizer.step()
    assert model.loss(batch)[0].item() < first - 0.5
    answer = model.eval().answer(TURN[0])
    checkpoint.save(tmp_path / "r", model, info_of("rewriter", config))
    again, _ = checkpoint.load(tmp_path / "r", expect="rewriter")
    assert isinstance(again, RewriterModel)
    assert again.answer(TURN[0]) == answer
