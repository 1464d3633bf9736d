"""LoRA: which weights of a language model are tuned, by small matrices beside them.

Queries and values of the attention, by the names that the common architectures give them; else
what peft tunes in that architecture; else every linear map on the way to the words' vectors.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn

from feature_repo.errors import InputError

warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")  # peft asks by the old name

_QUERY_AND_VALUE = (
    ("query", "value"),  # BERT, RoBERTa, ELECTRA, ALBERT
    ("q_proj", "v_proj"),  # Llama, Qwen2, Mistral, Gemma, OPT
    ("q_lin", "v_lin"),  # DistilBERT
    ("q", "v"),  # MPNet
)


def add_lora(model: Any, *, rank: int, alpha: int) -> Any:
    """``model`` with LoRA at its :func:`targets`; all its own weights are frozen.

    Raises:
        InputError: peft cannot tune this architecture.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    chosen = targets(model)
    turned = any(
        isinstance(module, Conv1D) and name.endswith(tuple(chosen))
        for name, module in model.named_modules()
    )  # GPT-2 keeps its matrices the other way round
    lora = LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=chosen, lora_dropout=0.0, fan_in_fan_out=turned
    )
    try:
        return get_peft_model(model, lora)
    except ValueError as error:
        raise _untunable(model, f"peft refuses {', '.join(chosen)} ({error})") from error


def targets(model: Any) -> list[str]:
    """Names of the modules that LoRA stands beside, or the ends of their names.

    Raises:
        InputError: there is none.
    """
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as BY_TYPE
    from transformers.pytorch_utils import Conv1D

    words = model.base_model  # without the head, where there is one
    linear = [
        name
        for name, module in words.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and "pooler" not in name  # nobody reads that
    ]
    names = {name.rsplit(".", 1)[-1] for name in linear}
    if known := [name for pair in _QUERY_AND_VALUE if names.issuperset(pair) for name in pair]:
        return known
    usual = BY_TYPE.get(model.config.model_type)
    if isinstance(usual, list) and names.issuperset(usual):
        return list(usual)
    if not linear:
        raise _untunable(model, "it has no linear map")
    return linear


def _untunable(model: Any, why: str) -> InputError:
    return InputError(
        f"language model: expected one that LoRA can tune, got a {model.config.model_type} model: "
        f"{why}; name one of BERT's, Llama's or GPT-2's kind"
    )
