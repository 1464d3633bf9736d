"""Tabular encoder: profile columns → one vector (FOUND 4.2.2, A.1, eq. 8–11).

Every column is a token: a category's embedding plus its column embedding, or an MLP of a
continuous value. Transformer blocks, then the mean over columns. Pre-trained by masked columns
(MLM, eq. 9) and replaced-token detection with one binary classifier per column (RTD, eq. 10).
Both are sums over a user's columns, as the equations have it, and means over users.

Shapes: B users, C categorical columns, F continuous columns, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from encoders import losses
from encoders.batch import UserBatch
from encoders.table import MISSING, TableColumns


@dataclass(frozen=True)
class TabularConfig:
    """Sizes, fitted columns and objective weights."""

    vocabularies: dict[str, list[str]] = field(default_factory=dict)
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    dim: int = 64
    out_dim: int = 192
    blocks: int = 4  # N of A.1
    heads: int = 4
    dropout: float = 0.1
    mask_rate: float = 0.3  # k of A.1
    replace_rate: float = 0.3  # not given by the paper; as many as are masked
    mlm_weight: float = 0.6
    rtd_weight: float = 0.4

    @cached_property
    def columns(self) -> TableColumns:
        """The fitted columns; they are asked for with every user who comes alone."""
        return TableColumns(
            self.vocabularies, {name: (m, s) for name, (m, s) in self.scales.items()}
        )


class _Mlps(nn.Module):
    """One two-layer MLP per continuous column, run side by side: [B, F] → [B, F, D]."""

    def __init__(self, columns: int, dim: int, hidden: int = 16):
        super().__init__()
        self.w1_FH = nn.Parameter(torch.randn(columns, hidden))
        self.b1_FH = nn.Parameter(torch.randn(columns, hidden) * 0.5)
        self.w2_FHD = nn.Parameter(torch.randn(columns, hidden, dim) / hidden**0.5)
        self.b2_FD = nn.Parameter(torch.zeros(columns, dim))

    def forward(self, values_BF: Tensor) -> Tensor:
        hidden_BFH = nn.functional.gelu(values_BF.unsqueeze(-1) * self.w1_FH + self.b1_FH)
        return torch.einsum("bfh,fhd->bfd", hidden_BFH, self.w2_FHD) + self.b2_FD


class TabularEncoder(nn.Module):
    """h_φ of eq. 8 with both of its pre-training objectives."""

    config_class = TabularConfig

    def __init__(self, config: TabularConfig):
        super().__init__()
        self.config = config
        D = config.dim
        sizes = config.columns.cardinalities
        self.register_buffer("first_code_C", torch.tensor([0, *sizes]).cumsum(0)[:-1], False)
        self.values = nn.Embedding(sum(sizes), D)
        self.columns_CD = nn.Parameter(torch.randn(len(sizes) + len(config.scales), D) * 0.02)
        self.mlps = _Mlps(len(config.scales), D)
        self.missing_FD = nn.Parameter(torch.randn(len(config.scales), D) * 0.02)
        layer = nn.TransformerEncoderLayer(
            D, config.heads, 2 * D, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, config.blocks, enable_nested_tensor=False)
        self.out = nn.Linear(D, config.out_dim)
        # Heads of the objectives; frozen once the encoder is aligned.
        self.mlm_heads = nn.ModuleList(nn.Linear(D, size) for size in sizes)
        self.rtd_CD = nn.Parameter(torch.randn(len(sizes), D) * 0.02)
        self.rtd_bias_C = nn.Parameter(torch.zeros(len(sizes)))

    def objective_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the self-supervised objectives use."""
        return [*self.mlm_heads.parameters(), self.rtd_CD, self.rtd_bias_C]

    def _tokens(self, batch: UserBatch, codes_BC: Tensor) -> Tensor:
        """Contextual column tokens [B, C + F, D]; codes index the joint value embedding."""
        continuous_BFD = torch.where(
            batch.missing_BF.unsqueeze(-1), self.missing_FD, self.mlps(batch.values_BF)
        )
        tokens = torch.cat([self.values(codes_BC), continuous_BFD], 1)
        return self.blocks(tokens + self.columns_CD)

    def forward(self, batch: UserBatch) -> Tensor:
        """The users' vectors, [B, D] (eq. 8): mean over all columns."""
        tokens = self._tokens(batch, batch.codes_BC + self.first_code_C)
        return self.out(tokens.mean(1))

    def loss(self, batch: UserBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """0.6 · masked columns + 0.4 · replaced-token detection (eq. 11)."""
        config, codes = self.config, batch.codes_BC
        if codes.shape[1] == 0:  # both objectives are about categories
            zero = self.rtd_bias_C.sum() * 0.0
            return zero, {"mlm": zero, "rtd": zero}
        joint = codes + self.first_code_C
        masked = torch.rand(codes.shape, device=codes.device) < config.mask_rate
        C = codes.shape[1]
        # A.1: "mask them as missing", so a missing value is read as one that could be any.
        tokens = self._tokens(batch, torch.where(masked, self.first_code_C + MISSING, joint))
        logits = [head(tokens[:, c]) for c, head in enumerate(self.mlm_heads)]
        mlm = losses.masked_columns(logits, codes, masked)

        # Replacements are drawn from the same column of other rows, so their frequencies match.
        shuffled = torch.stack([joint[torch.randperm(len(joint)), c] for c in range(C)], 1)
        chosen = torch.rand(codes.shape, device=codes.device) < config.replace_rate
        corrupted = torch.where(chosen, shuffled, joint)
        tokens = self._tokens(batch, corrupted)[:, :C]
        rtd_logits = (tokens * self.rtd_CD).sum(-1) + self.rtd_bias_C
        rtd = C * losses.replaced_detection(rtd_logits, corrupted != joint)
        total = config.mlm_weight * mlm + config.rtd_weight * rtd
        return total, {"mlm": mlm, "rtd": rtd}
