"""Language models by name: where their weights come from."""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from encoders import language_model
from encoders.language_model import MINILM, SMOLLM2, WeightsMissing, load_decoder


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


def test_a_model_that_is_nowhere_is_named() -> None:
    with pytest.raises(WeightsMissing, match="'nobody/no-such-model' is not on this machine"):
        language_model.load_language_model("nobody/no-such-model")
