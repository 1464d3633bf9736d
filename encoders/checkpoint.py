"""Checkpoints: a directory with ``config.json`` and ``model.safetensors``, nothing pickled.

An alignment checkpoint also holds ``catalogue.json``, the subjects of its training sentences.

The registry below is the only place that maps a stored name to a class.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encoders.alignment import FoundModel
from encoders.behaviour import BehaviourEncoder
from encoders.catalogue import FILE as CATALOGUE
from encoders.catalogue import Catalogue
from encoders.rewriter_model import RewriterModel
from encoders.search import SearchEncoder
from encoders.shopper_bert import ShopperBert
from encoders.tabular import TabularEncoder

MODELS: dict[str, Any] = {
    "behaviour": BehaviourEncoder,
    "tabular": TabularEncoder,
    "search": SearchEncoder,
    "alignment": FoundModel,
    "rewriter": RewriterModel,
    "shopper_bert": ShopperBert,
}


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or of another kind than asked for."""


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself (``config.json``)."""

    model: str
    config: dict[str, Any]
    trained_as_of: str
    horizon_days: int
    feature_hash: str
    seed: int
    version: str
    metrics: dict[str, float]


def save(
    directory: Path, model: nn.Module, info: CheckpointInfo, catalogue: Catalogue | None = None
) -> str:
    """Write a checkpoint atomically and return its hash."""
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(trained_state(model), temporary / "model.safetensors")
    # Keys stay in order: the columns of a table are identified by their position.
    (temporary / "config.json").write_text(json.dumps(asdict(info), indent=2))
    if catalogue is not None:
        (temporary / CATALOGUE).write_bytes(catalogue.to_json())
    replace_directory(temporary, directory)
    return fingerprint(directory)


def replace_directory(new: Path, target: Path) -> None:
    """Put ``new`` in the place of ``target``; a kill leaves the old one or the new one whole."""
    aside = target.with_name(f"{target.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        os.rename(target, aside)
    os.rename(new, target)
    shutil.rmtree(aside, ignore_errors=True)


def read_info(directory: Path) -> CheckpointInfo:
    """The description of the checkpoint in ``directory``.

    Raises:
        CheckpointError: when there is none or it cannot be read.
    """
    try:
        return CheckpointInfo(**json.loads((directory / "config.json").read_text()))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"no checkpoint in {directory}: expected config.json and model.safetensors, as "
            "`python -m ray_jobs.train` writes them"
        ) from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{directory / 'config.json'} is damaged ({error}): train again or restore it"
        ) from error


def read_catalogue(directory: Path) -> Catalogue | None:
    """The subjects that the checkpoint's sentences were about; None in one that says nothing.

    Raises:
        CheckpointError: when they cannot be read.
    """
    try:
        return Catalogue.from_json((directory / CATALOGUE).read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{directory / CATALOGUE} is damaged ({error}): train again or restore it"
        ) from error


def load(directory: Path, *, expect: str | None = None) -> tuple[nn.Module, CheckpointInfo]:
    """Rebuild the model of a checkpoint, in evaluation mode.

    Args:
        expect: name in :data:`MODELS` that the checkpoint must have.
    """
    info = read_info(directory)
    if expect is not None and info.model != expect:
        raise CheckpointError(f"{directory} holds a {info.model!r} checkpoint, expected {expect!r}")
    if info.model not in MODELS:
        raise CheckpointError(
            f"{directory} holds a {info.model!r} checkpoint, expected one of {sorted(MODELS)}"
        )
    model_class = MODELS[info.model]
    try:
        model = model_class(model_class.config_class(**info.config))
    except TypeError as error:
        raise CheckpointError(
            f"{directory / 'config.json'} does not fit this version ({error}): train again"
        ) from error
    load_state(model, directory)
    return model.eval(), info


def load_state(model: nn.Module, directory: Path) -> None:
    """Load the weights in ``directory`` into ``model``, strictly."""
    try:
        state = load_file(directory / "model.safetensors")
    except (FileNotFoundError, SafetensorError) as error:
        raise CheckpointError(
            f"{directory / 'model.safetensors'} cannot be read ({error}): train again"
        ) from error
    expected = trained_state(model)
    if expected.keys() != state.keys():
        missing, extra = expected.keys() - state.keys(), state.keys() - expected.keys()
        raise CheckpointError(
            f"{directory} does not fit the model: {len(missing)} weights missing "
            f"({', '.join(sorted(missing)[:3])}…), {len(extra)} unexpected "
            f"({', '.join(sorted(extra)[:3])}…): it was written by another version, train again"
        )
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"{directory} does not fit the model ({str(error).splitlines()[-1].strip()}): "
            "config.json and model.safetensors belong to different checkpoints"
        ) from error


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights worth keeping: all but the frozen language model, which a package holds."""
    state: dict[str, Tensor] = {}
    kept: set[int] = set()
    for name, tensor in model.state_dict().items():
        if ".base_layer." in name or _frozen_language_model(name):
            continue
        if tensor.numel() and tensor.data_ptr() in kept:
            continue  # tied to a weight that is kept already (ALBERT's decoder)
        kept.add(tensor.data_ptr())
        state[name] = tensor.detach().contiguous()
    return state


def _frozen_language_model(name: str) -> bool:
    return name.startswith(("text.model.", "decoder.")) and "lora_" not in name


def fingerprint(directory: Path) -> str:
    """SHA-256 over the checkpoint's files."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        digest.update((directory / name).read_bytes())
    if (directory / CATALOGUE).exists():
        digest.update((directory / CATALOGUE).read_bytes())
    return digest.hexdigest()
