"""Language models by name: packages, which way they read, and which of their weights are tuned."""

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from encoders import language_model, lora
from encoders.language_model import (
    MINILM,
    SMOLLM2,
    WeightsMissing,
    load_decoder,
    load_language_model,
)
from encoders.text import LineEncoder, TextConfig, TextTower
from feature_repo.errors import InputError

SENTENCES = ["people who buy dog food", "will buy cheese in the next four weeks", "candles"]
WIDE = {"hidden_size": 16, "intermediate_size": 16}
DEEP = {"num_hidden_layers": 2, "num_attention_heads": 2}
SIZES: dict[str, dict[str, Any]] = {
    "Bert": {**WIDE, **DEEP},
    "DistilBert": {"dim": 16, "hidden_dim": 16, "n_layers": 2, "n_heads": 2},
    "MPNet": {**WIDE, **DEEP},
    "ModernBert": {**WIDE, **DEEP},
    "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "GPTNeoX": {**WIDE, **DEEP},
    "Phi3": {**WIDE, **DEEP, "num_key_value_heads": 2},
    "Llama": {**WIDE, **DEEP, "num_key_value_heads": 2},
    "Qwen2": {**WIDE, **DEEP, "num_key_value_heads": 2},
    "Mamba": {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
    "FNet": {**WIDE, "num_hidden_layers": 1},
    "T5": {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
}
TUNED = {
    "Bert": {"query", "value"}, "DistilBert": {"q_lin", "v_lin"}, "MPNet": {"q", "v"},
    "ModernBert": {"Wqkv", "Wo", "Wi"}, "GPT2": {"c_attn"}, "GPTNeoX": {"query_key_value"},
    "Phi3": {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}, "Llama": {"q_proj", "v_proj"},
    "Qwen2": {"q_proj", "v_proj"},
}  # fmt: skip
ENCODERS = ["Bert", "DistilBert", "MPNet", "ModernBert"]
DECODERS = ["GPT2", "GPTNeoX", "Phi3", "Llama", "Qwen2"]
Build = Callable[..., str]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, spell: Callable[..., int]) -> Build:
    """Directory of a random model of some architecture that reads letter by letter."""

    def build(kind: str, *, head: str = "Model", **more: Any) -> str:
        directory = tmp_path_factory.mktemp(kind)
        num_signs = spell(directory, eos_token="<end>", pad_token="<end>", padding_side="left")
        ends = dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id"), 1)
        ends |= dict.fromkeys(("cls_token_id", "sep_token_id"), 1) if "Modern" in kind else {}
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=num_signs, **SIZES[kind], **ends, **more
        )
        torch.manual_seed(0)
        getattr(transformers, f"{kind}{head}")(config).save_pretrained(directory)
        return str(directory)

    return build


def tower_of(model: str) -> TextTower:
    return TextTower(TextConfig(model=model, dim=6, hidden=8, lora_rank=2, max_tokens=60))


def test_missing_weights_name_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsMissing, match="MiniLM-L6-v2 are not installed: run `make weights`"):
        language_model.load_language_model(MINILM)
    for load in (language_model.load_language_model, load_decoder):
        with pytest.raises(WeightsMissing, match="SmolLM2-.* are not installed.*gguf==0.19.0"):
            load(SMOLLM2)


@pytest.mark.parametrize(
    ("name", "file", "digest"),
    [
        (MINILM, "model/model.safetensors", "53aa51172d14"),
        (SMOLLM2, "SmolLM2-135M-Instruct.Q4_1.gguf", "b179c9523d0e"),
    ],
)
def test_weights_with_another_hash_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, file: str, digest: str
) -> None:
    spec = ModuleSpec("package", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    load = load_decoder if name == SMOLLM2 else language_model.load_language_model
    with pytest.raises(WeightsMissing, match="are not installed"):
        load(name)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"tampered")
    with pytest.raises(WeightsMissing, match=f"sha256 .*expected {digest}.*requirements/"):
        load(name)


@pytest.mark.parametrize("ask", [language_model.load_language_model, language_model.width_of])
def test_a_model_that_is_nowhere_is_named_with_the_remedy(ask: Callable) -> None:
    told = f"expected '{MINILM}', '{SMOLLM2}', a directory, .* `hf download nobody/no-such-model`"
    with pytest.raises(WeightsMissing, match=f"'nobody/no-such-model' is not .*{told}") as missing:
        ask("nobody/no-such-model")
    assert "\n" not in str(missing.value)


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_a_width_is_known_without_the_weights(kind: str, tiny: Build) -> None:
    directory = tiny(kind)
    width = load_language_model(directory)[1].config.hidden_size
    (Path(directory) / "model.safetensors").unlink()
    assert language_model.width_of(directory) == width == 16
    with pytest.raises(WeightsMissing, match="save the model and its tokenizer there"):
        load_language_model(directory)


def test_the_width_of_a_package_is_that_of_its_weights(minilm: tuple[Any, Any]) -> None:
    assert language_model.width_of(MINILM) == minilm[1].config.hidden_size


def test_a_directory_is_known_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("qwen", MINILM):
        Path(name).mkdir()
    assert language_model.located("qwen") == str(tmp_path.resolve() / "qwen")
    assert language_model.located(MINILM) == MINILM
    assert language_model.located("Qwen/Qwen2-0.5B") == "Qwen/Qwen2-0.5B"


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_each_architecture_is_read_as_it_was_made(kind: str, tiny: Build) -> None:
    """Decoders at their last word, encoders by their mean; alone, in company and cached alike."""
    tower = tower_of(tiny(kind))
    assert tower.causal == (kind in DECODERS)
    frozen = torch.from_numpy(LineEncoder(model=tower.config.model)(SENTENCES))
    tower.train()  # no dropout is left that would blur what is compared
    together = tower(tower.tokenize(SENTENCES))
    torch.testing.assert_close(together, tower({"pooled": frozen}), atol=1e-5, rtol=1e-4)
    for sentence, expected in zip(SENTENCES, together, strict=True):
        alone = tower(tower.tokenize([sentence]))[0]
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-4)
    hidden = tower.model(**tower.tokenize(SENTENCES[:1])).last_hidden_state[0]
    own = hidden[-1] if kind in DECODERS else hidden.mean(0)
    np.testing.assert_allclose(frozen[0], own.detach() / own.norm().item(), atol=1e-5)


@pytest.mark.parametrize("kind", [*ENCODERS, *DECODERS])
def test_lora_reaches_each_architecture(kind: str, tiny: Build) -> None:
    tower = tower_of(tiny(kind))
    before = tower(tower.tokenize(SENTENCES))
    tuned = {n: p for n, p in tower.model.named_parameters() if p.requires_grad}
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in tuned} == TUNED[kind]
    for name, parameter in tuned.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    after = tower(tower.tokenize(SENTENCES))
    assert (after - before).abs().max() > 1e-3
    (after * torch.randn_like(after)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tuned.values())


def test_which_way_a_model_reads_is_not_told_by_its_name(tiny: Build) -> None:
    assert tower_of(tiny("Bert", is_decoder=True)).causal
    assert not tower_of(tiny("Bert")).causal


def test_asking_leaves_the_model_as_it_was(tiny: Build) -> None:
    model = transformers.AutoModel.from_pretrained(tiny("GPT2")).train()
    assert language_model.is_causal(model)
    assert model.training
    assert language_model.is_causal(model.eval())
    assert not model.training


@pytest.mark.parametrize("kind", ["T5", "FNet"])
def test_what_neither_encodes_nor_decodes_alone_is_refused(kind: str, tiny: Build) -> None:
    came = f"expected an encoder .* or a causal decoder .* got a {kind.lower()} model"
    with pytest.raises(InputError, match=came):
        tower_of(tiny(kind))


def test_what_has_two_stacks_has_no_width(tiny: Build) -> None:
    with pytest.raises(InputError, match="expected an encoder .* got a t5 model"):
        language_model.width_of(tiny("T5"))


def test_what_no_vector_passes_through_is_not_tuned(tiny: Build) -> None:
    """Where no name is known every linear map is tuned, but for the unread pooler's."""
    model = transformers.AutoModel.from_pretrained(tiny("FNet"))
    assert any("pooler.dense" in name for name, _ in model.named_modules())
    parts = ("intermediate", "output")
    assert lora.targets(model) == [
        "embeddings.projection", *(f"encoder.layer.0.{part}.dense" for part in parts)
    ]  # fmt: skip


def test_what_peft_cannot_tune_is_refused(tiny: Build) -> None:
    with pytest.raises(InputError, match="LoRA can tune, got a mamba model: peft refuses"):
        tower_of(tiny("Mamba"))


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="expected one that Hugging Face's AutoModel .* open"):
        tower_of(str(tmp_path))


def test_a_tokenizer_that_cannot_pad_is_refused(tiny: Build, spell: Callable[..., int]) -> None:
    directory = tiny("GPT2")
    for file in Path(directory).glob("*token*"):
        file.unlink()
    spell(Path(directory))
    with pytest.raises(InputError, match="neither a padding nor an end token"):
        tower_of(directory)


def test_only_a_model_that_writes_on_is_a_decoder(tiny: Build) -> None:
    for kind, head in (("GPT2", "LMHeadModel"), ("Llama", "ForCausalLM")):
        _, model = load_decoder(tiny(kind, head=head))
        assert model.config.vocab_size == model.get_output_embeddings().out_features
    with pytest.raises(InputError, match="got a bert model, which reads ahead"):
        load_decoder(tiny("Bert"))  # Hugging Face opens it as a causal model
    with pytest.raises(InputError, match="expected one that Hugging Face's AutoModelForCausalLM"):
        load_decoder(tiny("DistilBert"))
