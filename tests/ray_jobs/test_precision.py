"""Mixed precision is computed where it is faster, and nowhere else."""

from __future__ import annotations

import warnings

import pytest
import torch

from ray_jobs.precision import autocast

CPU = torch.device("cpu")
X = torch.ones(2, 2)


def fused() -> bool:
    """Whether attention may use its fused kernel, on any device whatever the name says."""
    return bool(torch.backends.cuda.flash_sdp_enabled())


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_cpu_with_the_instructions_uses_them(
    instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, instructions: True})
    with autocast("float32", CPU):
        assert (X @ X).dtype == torch.float32 and fused()
    with autocast("bfloat16", CPU):
        assert (X @ X).dtype == torch.bfloat16
        assert not fused(), "its backward pass is slow there"
    assert (X @ X).dtype == torch.float32 and fused()


def test_a_cpu_without_them_computes_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.warns(RuntimeWarning, match="bfloat16: this CPU has no instructions for it"):
        with autocast("bfloat16", CPU):
            assert (X @ X).dtype == torch.float32 and fused()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with autocast("float32", CPU):
            assert (X @ X).dtype == torch.float32


def test_a_gpu_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.warns(UserWarning), autocast("bfloat16", torch.device("cuda")):
        assert torch.get_autocast_dtype("cuda") == torch.bfloat16
        assert (X @ X).dtype == torch.float32 and fused()
