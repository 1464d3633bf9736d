"""Fusion: cross-attention among the modalities that a user has (FOUND 4.3.1, eq. 13).

Each modality's vector is a token. In every layer each token queries the tokens of all present
modalities; absent ones are masked. The fused vector is the mean over the present tokens, and a
user with none gets a learned "cold" vector. :class:`Concatenation` is what FOUND's Tables 4 and 5
compare it with.

Eq. 13 leaves open where fusion starts. With ``start="even"`` it is the mean of the modalities on an
equal footing, and whatever attention adds to that has to be learnt: encoders that never met differ
in scale and share a large common part, and a random start mixes them as they come. The
concatenation then starts from the same vectors, or the comparison would be one of scales.

Shapes: B users, M modalities, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from encoders.layers import Centre

_SHARED = 2.0  # deviation of what all users have in common; that of their differences is 1
Start = Literal["random", "even"]


def _centres(widths: list[int], start: Start) -> nn.ModuleList:
    return nn.ModuleList(Centre(width) if start == "even" else nn.Identity() for width in widths)


def _fit(centres: nn.ModuleList, vectors: list[Tensor], present_BM: Tensor) -> None:
    for m, (centre, vector) in enumerate(zip(centres, vectors, strict=True)):
        if isinstance(centre, Centre):
            centre.fit(vector[present_BM[:, m]])


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
        start: "even" needs :meth:`fit` before training.
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
        start: Start = "random",
    ):
        super().__init__()
        self.centre = _centres(widths, start)
        self.project = nn.ModuleList(
            nn.Identity() if width == dim else nn.Linear(width, dim) for width in widths
        )
        self.modality_MD = nn.Parameter(torch.randn(len(widths), dim) * 0.02)
        self.layers = nn.ModuleList(_CrossAttention(dim, heads, dropout) for _ in range(layers))
        self.cold_D = nn.Parameter(torch.zeros(dim))
        self.out = nn.Linear(dim, out_dim)
        if start == "even":
            self._start_even()

    @torch.no_grad()
    def _start_even(self) -> None:
        """Layers that add nothing yet, an output that loses nothing, and a part all users share.

        Without that part a cosine would not see how far users are from the average, which is how
        much they do.
        """
        for layer in self.layers:
            for last in (layer.attention.out_proj, layer.feed_forward[-1]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        nn.init.orthogonal_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.modality_MD, std=_SHARED)

    @torch.no_grad()
    def fit(self, vectors: list[Tensor], present_BM: Tensor) -> None:
        """Learn each modality's moments from the users who have it; arguments as of a forward."""
        _fit(self.centre, vectors, present_BM)

    def forward(self, vectors: list[Tensor], present_BM: Tensor) -> Tensor:
        """Fused vectors [B, out_dim] from one [B, width] per modality and who has which."""
        tokens = [
            project(centre(vector))
            for project, centre, vector in zip(self.project, self.centre, vectors, strict=True)
        ]
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
        start: "even" needs :meth:`fit` before training.
    """

    def __init__(self, *, widths: list[int], out_dim: int, start: Start = "random"):
        super().__init__()
        self.centre = _centres(widths, start)
        self.out = nn.Linear(sum(widths), out_dim)
        if start == "even":  # as attention starts: nothing is lost, and all users share a part
            nn.init.orthogonal_(self.out.weight)
            nn.init.normal_(self.out.bias, std=_SHARED)

    @torch.no_grad()
    def fit(self, vectors: list[Tensor], present_BM: Tensor) -> None:
        """Learn each modality's moments from the users who have it; arguments as of a forward."""
        _fit(self.centre, vectors, present_BM)

    def forward(self, vectors: list[Tensor], present_BM: Tensor) -> Tensor:
        """Fused vectors [B, out_dim] from one [B, width] per modality and who has which."""
        shown = [
            torch.where(present_BM[:, m : m + 1], centre(vector), 0.0)
            for m, (centre, vector) in enumerate(zip(self.centre, vectors, strict=True))
        ]
        return self.out(torch.cat(shown, 1))
