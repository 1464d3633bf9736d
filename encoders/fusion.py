"""Fusion: cross-attention among the modalities that a user has (FOUND 4.3.1, eq. 13).

Each modality's vector is a token. In every layer each token queries the tokens of all present
modalities; absent ones are masked. The fused vector is the mean over the present tokens, and a
user with none gets a learned "cold" vector. :class:`Concatenation` is what FOUND's Tables 4 and 5
compare it with.

Shapes: B users, M modalities, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def forward(self, x_BMD: Tensor, absent_BM: Tensor) -> Tensor:
        normed = self.norm(x_BMD)
        attended, _ = self.attention(
            normed, normed, normed, key_padding_mask=absent_BM, need_weights=False
        )
        x_BMD = x_BMD + attended
        return x_BMD + self.feed_forward(x_BMD)


class Fusion(nn.Module):
    """CA of eq. 13.

    Args:
        widths: width of each modality's vector, in order.
        dim: D, inner width.
        out_dim: width of the fused vector.
    """

    def __init__(
        self,
        *,
        widths: list[int],
        dim: int,
        out_dim: int,
        layers: int,
        heads: int = 4,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.project = nn.ModuleList(
            nn.Identity() if width == dim else nn.Linear(width, dim) for width in widths
        )
        self.modality_MD = nn.Parameter(torch.randn(len(widths), dim) * 0.02)
        self.layers = nn.ModuleList(_CrossAttention(dim, heads, dropout) for _ in range(layers))
        self.cold_D = nn.Parameter(torch.zeros(dim))
        self.out = nn.Linear(dim, out_dim)

    def forward(self, vectors: list[Tensor], present_BM: Tensor) -> Tensor:
        """Fused vectors [B, out_dim] from one [B, width] per modality and who has which."""
        tokens = [project(v) for project, v in zip(self.project, vectors, strict=True)]
        x_BMD = torch.stack(tokens, 1) + self.modality_MD
        anyone_B1 = present_BM.any(1, keepdim=True)
        # A row without modalities would attend to nothing (NaN): let it attend, then discard it.
        absent_BM = ~present_BM & anyone_B1
        for layer in self.layers:
            x_BMD = layer(x_BMD, absent_BM)
        weight_BM1 = present_BM.unsqueeze(-1).to(x_BMD.dtype)
        mean_BD = (x_BMD * weight_BM1).sum(1) / weight_BM1.sum(1).clamp(min=1.0)
        return self.out(torch.where(anyone_B1, mean_BD, self.cold_D))


class Concatenation(nn.Module):
    """The modalities' vectors side by side, through one linear map; an absent one is zero.

    Args:
        widths: width of each modality's vector, in order.
        out_dim: width of the fused vector.
    """

    def __init__(self, *, widths: list[int], out_dim: int):
        super().__init__()
        self.out = nn.Linear(sum(widths), out_dim)

    def forward(self, vectors: list[Tensor], present_BM: Tensor) -> Tensor:
        """Fused vectors [B, out_dim] from one [B, width] per modality and who has which."""
        shown = [
            torch.where(present_BM[:, m : m + 1], vector, 0.0) for m, vector in enumerate(vectors)
        ]
        return self.out(torch.cat(shown, 1))
