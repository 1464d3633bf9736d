"""Collectives that keep gradients, so that in-batch negatives can come from every worker."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of training processes; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_with_grad(x_BD: Tensor) -> Tensor:
    """Every worker's rows, [world * B, D]; backward sums each row's gradient over the workers.

    All workers must pass the same shape. When each worker computes the same loss over the
    gathered rows and gradients are averaged (as DDP does), the result equals one process on the
    whole batch.
    """
    if world_size() == 1:
        return x_BD
    from torch.distributed._functional_collectives import all_gather_tensor_autograd

    return all_gather_tensor_autograd(x_BD.contiguous(), gather_dim=0, group=dist.group.WORLD)


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """Every worker's rows, without gradients."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)
