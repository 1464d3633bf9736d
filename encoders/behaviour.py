"""Behaviour encoder: weekly windows of text → one vector (FOUND 4.2.1, eq. 5–7).

g_ν turns the lines of a window (bills, page clicks, mini-programs) into z_t: each distinct line
has a frozen sentence vector, each source its own small network over it, and a window is the
weighted sum of its lines. g_μ, a causal Transformer or a GRU, turns z into c_t. The user's vector
is the average of c over the windows (eq. 5). It is pre-trained to forecast coming windows (eq. 6)
with a cyclic regulariser (eq. 7).

Shapes: B users, W windows (oldest first), D width, E width of a line vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders import losses
from encoders.batch import UserBatch
from encoders.layers import ResidualMlp, Whiten
from feature_repo.schema import EVENT_SOURCES


@dataclass(frozen=True)
class BehaviourConfig:
    """Sizes and objective of the behaviour encoder; defaults are the laptop's."""

    line_width: int = 384
    dim: int = 256
    line_hidden: int = 512
    temporal_dim: int = 64  # width inside g_μ; what it finds is added to z
    layers: int = 2
    heads: int = 4
    windows: int = 26
    pretrain_windows: int = 9  # A.1: 5 past windows, 4 to forecast
    temporal: Literal["transformer", "gru"] = "transformer"
    forecast_windows: int = 4  # how many of them are only forecast
    forecast_steps: int = 4  # k of eq. 6
    temperature: float = 1.0  # of the cosines in eq. 6
    pooling: Literal["mean", "recency"] = "recency"  # mean is eq. 5
    forecast_weight: float = 1.0  # 0 switches the forecast off
    cycle: int = 4  # T of eq. 7, in weeks
    cycle_weight: float = 0.1  # λ of eq. 7
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.temporal_dim % self.heads:
            raise ValueError(
                f"temporal_dim={self.temporal_dim} must be a multiple of heads={self.heads}"
            )
        if not 0 < self.forecast_windows < self.pretrain_windows <= self.windows:
            raise ValueError(
                "expected 0 < forecast_windows < pretrain_windows <= windows, got "
                f"{self.forecast_windows}, {self.pretrain_windows}, {self.windows}"
            )


class BehaviourEncoder(nn.Module):
    """g_θ = g_μ ∘ g_ν, its pooling and its self-supervised objective."""

    config_class = BehaviourConfig

    def __init__(self, config: BehaviourConfig):
        super().__init__()
        self.config = config
        D = config.dim
        self.whiten = Whiten(config.line_width)
        self.sources = nn.ModuleDict(
            {
                source: ResidualMlp(config.line_width, D, hidden=config.line_hidden)
                for source in EVENT_SOURCES
            }
        )
        self.empty_D = nn.Parameter(torch.zeros(D))
        self.unknown_D = nn.Parameter(torch.zeros(D))
        if config.pooling == "recency":
            self.pool_WD = nn.Parameter(torch.full((config.windows, D), 1.0 / config.windows))
        H = config.temporal_dim
        self.down = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, H))
        self.lag_WH = nn.Parameter(torch.randn(config.windows, H) * 0.02)
        self.temporal: nn.Module
        if config.temporal == "gru":
            self.temporal = nn.GRU(H, H, config.layers, batch_first=True)
        else:
            layer = nn.TransformerEncoderLayer(
                H, config.heads, 2 * H, config.dropout, "gelu", batch_first=True, norm_first=True
            )
            self.temporal = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.up = nn.Linear(H, D)

    def windows(self, batch: UserBatch) -> Tensor:
        """z = g_ν: window embeddings [B, W, D]; empty and unknown windows have vectors of own."""
        B, W = batch.known_BW.shape
        z = torch.zeros(B * W, self.config.dim, device=batch.lines_VE.device)
        lines_VE = self.whiten(batch.lines_VE)
        for source, bag in batch.bags.items():
            projected_VD = self.sources[source](lines_VE)
            z = z + functional.embedding_bag(
                bag.ids,
                projected_VD,
                bag.offsets,
                mode="sum",
                per_sample_weights=bag.weights.to(projected_VD.dtype),
            )
        z_BWD = z.view(B, W, -1)
        z_BWD = torch.where(batch.filled_BW.unsqueeze(-1), z_BWD, self.empty_D.expand_as(z_BWD))
        return torch.where(batch.known_BW.unsqueeze(-1), z_BWD, self.unknown_D.expand_as(z_BWD))

    def contexts(self, z_BWD: Tensor) -> Tensor:
        """c = g_μ(z), [B, W, D]; c_t sees windows up to t only."""
        W = z_BWD.shape[1]
        x_BWH = self.down(z_BWD) + self.lag_WH[-W:]
        if isinstance(self.temporal, nn.GRU):
            h_BWH = self.temporal(x_BWH)[0]
        else:
            mask = nn.Transformer.generate_square_subsequent_mask(W, device=z_BWD.device)
            h_BWH = self.temporal(x_BWH, mask=mask, is_causal=True)
        return z_BWD + self.up(h_BWH)

    def forward(self, batch: UserBatch) -> Tensor:
        """The users' vectors, [B, D] (eq. 5).

        ``recency`` pooling lets each coordinate learn how fast the past fades; it starts as the
        paper's average.
        """
        c_BWD = self.contexts(self.windows(batch))
        if self.config.pooling == "recency":
            return (c_BWD * self.pool_WD[-c_BWD.shape[1] :]).sum(1)
        known = batch.known_BW.unsqueeze(-1).to(c_BWD.dtype)
        return (c_BWD * known).sum(1) / known.sum(1).clamp(min=1.0)

    def loss(self, batch: UserBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Forecasting and cyclic loss (eq. 6, 7); contexts come from the past windows only."""
        config = self.config
        z_BWD = self.windows(batch)
        past = z_BWD.shape[1] - config.forecast_windows
        c_BWD = self.contexts(z_BWD[:, :past])
        forecast = losses.forecasting(
            functional.pad(c_BWD, (0, 0, 0, config.forecast_windows)),
            z_BWD,
            batch.filled_BW,
            steps=config.forecast_steps,
            contexts=past,
            temperature=config.temperature,
        )
        cycle = losses.cyclic(c_BWD, batch.filled_BW[:, :past], period=config.cycle)
        total = config.forecast_weight * forecast + config.cycle_weight * cycle
        return total, {"forecast": forecast, "cycle": cycle}
