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
    def fit(self, x_NE: Tensor) -> None:
        """Learn the moments of ``x_NE``; afterwards coordinates have about unit variance."""
        mean_E = x_NE.double().mean(0)
        centred = x_NE.double() - mean_E
        covariance = centred.T @ centred / max(len(x_NE) - 1, 1)
        values, vectors = torch.linalg.eigh(covariance)
        floor = self.shrink * values.clamp(min=0).mean().clamp(min=1e-12)
        scale = (values.clamp(min=0) + floor).rsqrt()
        self.mean_E.copy_(mean_E)
        self.matrix_EE.copy_(vectors * scale @ vectors.T)

    def forward(self, x_NE: Tensor) -> Tensor:
        """[..., E] → [..., E]."""
        return (x_NE - self.mean_E) @ self.matrix_EE
