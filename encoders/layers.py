"""Small layers that more than one encoder uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualMlp(nn.Module):
    """A linear map plus a two-layer MLP beside it: [..., in] → [..., out].

    Args:
        hidden: width of the MLP; 0 leaves the linear map alone.
    """

    def __init__(self, width: int, out: int, *, hidden: int):
        super().__init__()
        self.linear = nn.Linear(width, out)
        self.mlp = (
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))
            if hidden
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The mapped vectors."""
        return self.linear(x) if self.mlp is None else self.linear(x) + self.mlp(x)


class NearIdentity(nn.Module):
    """The identity, a map of low rank beside it and a bias: what starts as the input's own words.

    Training can bend it in ``rank`` directions only, so that words it never saw keep their meaning.
    """

    def __init__(self, width: int, *, rank: int):
        super().__init__()
        self.into = nn.Linear(width, rank, bias=False)
        self.out = nn.Linear(rank, width)
        nn.init.normal_(self.into.weight, std=width**-0.5)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        mapped: Tensor = x + self.out(self.into(x))
        return mapped


class Standardise(nn.Module):
    """Mean 0 and deviation 1 per coordinate, by moments fitted once and kept; cut at ±5."""

    mean_F: Tensor
    std_F: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean_F", torch.zeros(width))
        self.register_buffer("std_F", torch.ones(width))

    @torch.no_grad()
    def fit(self, x_NF: Tensor) -> None:
        """Learn the moments of ``x_NF``; a constant coordinate is only centred."""
        if len(x_NF) < 2:
            return
        std_F = x_NF.double().std(0)
        self.mean_F.copy_(x_NF.double().mean(0))
        self.std_F.copy_(torch.where(std_F > 1e-6, std_F, torch.ones_like(std_F)))

    def forward(self, x_NF: Tensor) -> Tensor:
        """[..., F] → [..., F]."""
        return ((x_NF - self.mean_F) / self.std_F).clamp(-5, 5)


class Centre(nn.Module):
    """Mean 0 per coordinate and deviation 1 over all of them, by moments fitted once and kept.

    Unlike :class:`Standardise` it keeps which directions are wide: small ones are mostly noise.
    """

    mean_D: Tensor
    std: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("std", torch.ones(()))

    @torch.no_grad()
    def fit(self, x_ND: Tensor) -> None:
        """Learn the moments of ``x_ND``; equal or too few vectors are only centred."""
        if len(x_ND) == 0:
            return
        mean_D = x_ND.double().mean(0)
        std = (x_ND.double() - mean_D).square().mean().sqrt()
        self.mean_D.copy_(mean_D)
        self.std.copy_(std if std > 1e-6 else torch.ones_like(std))

    def forward(self, x_ND: Tensor) -> Tensor:
        """[..., D] → [..., D]."""
        return (x_ND - self.mean_D) / self.std


class Whiten(nn.Module):
    """Centres vectors and equalises their directions, with moments fitted once and kept.

    Sentence vectors share a large common part and a few dominant directions; a sum of many would
    be mostly that. Until :meth:`fit` is called it is the identity.

    Args:
        width: E, width of the vectors.
        shrink: added to the eigenvalues, as a share of their mean; keeps rare directions quiet.
    """

    mean_E: Tensor
    matrix_EE: Tensor

    def __init__(self, width: int, *, shrink: float = 0.1):
        super().__init__()
        self.shrink = shrink
        self.register_buffer("mean_E", torch.zeros(width))
        self.register_buffer("matrix_EE", torch.eye(width))

    @torch.no_grad()
    def fit(self, x_NE: Tensor, weight_N: Tensor | None = None) -> None:
        """Learn the moments of ``x_NE``; afterwards coordinates have about unit variance."""
        weight_N = x_NE.new_ones(len(x_NE)) if weight_N is None else weight_N
        share_N1 = (weight_N.double() / weight_N.sum()).unsqueeze(1)
        mean_E = (share_N1 * x_NE.double()).sum(0)
        centred = x_NE.double() - mean_E
        covariance = (share_N1 * centred).T @ centred
        values, vectors = torch.linalg.eigh(covariance)
        floor = self.shrink * values.clamp(min=0).mean().clamp(min=1e-12)
        scale = (values.clamp(min=0) + floor).rsqrt()
        self.mean_E.copy_(mean_E)
        self.matrix_EE.copy_(vectors * scale @ vectors.T)

    def forward(self, x_NE: Tensor) -> Tensor:
        """[..., E] → [..., E]."""
        return (x_NE - self.mean_E) @ self.matrix_EE
