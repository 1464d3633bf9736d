"""Mixed precision where the device has the instructions for it; elsewhere float32.

A CPU without them emulates bfloat16: a product of two matrices then takes tens of times as long.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_CPU_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")  # Intel's, also AMD's, ARM's


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in ``precision``; on a CPU with attention written out as matrix products.

    The fused kernel's backward pass takes four times as long there in bfloat16 as in float32. A CPU
    that cannot multiply in bfloat16 computes in float32, and says so.
    """
    if precision == "float32" or not _has_instructions(device):
        yield
        return
    plain = sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
    with torch.autocast(device.type, dtype=getattr(torch, precision)), plain:
        yield


def _has_instructions(device: torch.device) -> bool:
    if device.type != "cpu":
        return True
    has = torch.cpu.get_capabilities()
    if any(has.get(name) for name in _CPU_INSTRUCTIONS):
        return True
    warnings.warn(
        "precision bfloat16: this CPU has no instructions for it, so float32 is computed instead, "
        "which is faster here", RuntimeWarning, stacklevel=4,
    )  # fmt: skip
    return False
