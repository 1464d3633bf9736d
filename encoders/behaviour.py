"""Behaviour encoder: weekly windows of text → one vector (FOUND 4.2.1, eq. 5–7).

g_ν turns a window's bills, page clicks and mini-programs into z_t. With ``window_encoder="albert"``
it is the paper's: an ALBERT reads the window's text. With ``"lines"`` each distinct line has a
frozen sentence vector, each source its own small network over it, and a window is the weighted sum
of its lines. g_μ, a causal Transformer or a GRU, turns z into c_t. The user's vector is the average
of c over the windows (eq. 5). It is pre-trained to forecast coming windows (eq. 6) with a cyclic
regulariser (eq. 7).

Shapes: B users, W windows (oldest first), N non-empty windows, D width, E width of a line vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AlbertConfig, AlbertModel

from encoders import losses
from encoders.albert import PAD, albert_config, contextual
from encoders.batch import UserBatch
from encoders.layers import ResidualMlp, Whiten
from encoders.text import mean_pool
from feature_repo.schema import EVENT_SOURCES


@dataclass(frozen=True)
class BehaviourConfig:
    """Sizes and objective of the behaviour encoder."""

    window_encoder: Literal["albert", "lines"] = "lines"
    line_width: int = 384
    dim: int = 256
    line_hidden: int = 512
    temporal_dim: int | None = 64  # width inside g_μ, whose finds are added to z; None: D, no sum
    layers: int = 2
    heads: int = 4
    windows: int = 26
    pretrain_windows: int = 9  # A.1: 5 past windows, 4 to forecast
    temporal: Literal["transformer", "gru"] = "transformer"
    forecast_windows: int = 4  # how many of them are only forecast
    forecast_steps: int = 4  # k of eq. 6
    temperature: float = 1.0  # of the cosines in eq. 6, which has none
    learn_temperature: bool = False  # start from it instead of keeping it
    pooling: Literal["mean", "recency"] = "recency"  # mean is eq. 5
    forecast_weight: float = 1.0  # 0 switches the forecast off
    cycle: int = 4  # T of eq. 7, in weeks
    cycle_weight: float = 0.1  # λ of eq. 7
    dropout: float = 0.1
    vocabulary: int = 30_522  # this and what follows: of the ALBERT
    text_dim: int = 64
    text_embedding: int = 64
    text_layers: int = 2
    text_heads: int = 4
    max_tokens: int = 64  # at which a window's text is cut

    def __post_init__(self) -> None:
        if self.window_encoder not in ("albert", "lines"):
            raise ValueError(
                f"window_encoder must be 'albert' or 'lines', got {self.window_encoder!r}"
            )
        if self.temporal not in ("transformer", "gru"):
            raise ValueError(f"temporal must be 'transformer' or 'gru', got {self.temporal!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        name = "dim" if self.temporal_dim is None else "temporal_dim"
        if getattr(self, name) % self.heads:
            raise ValueError(
                f"{name}={getattr(self, name)} must be a multiple of heads={self.heads}"
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
        if config.window_encoder == "albert":
            self.albert = AlbertModel(_albert(config), add_pooling_layer=False)
            self.read = nn.Linear(config.text_dim, D)
        else:
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
        H = config.temporal_dim or D
        if config.temporal_dim is not None:
            self.down = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, H))
            self.up = nn.Linear(H, D)
        self.lag_WH = nn.Parameter(torch.randn(config.windows, H) * 0.02)
        self.temporal: nn.Module
        if config.temporal == "gru":
            self.temporal = nn.GRU(H, H, config.layers, batch_first=True)
        else:
            layer = nn.TransformerEncoderLayer(
                H, config.heads, 2 * H, config.dropout, "gelu", batch_first=True, norm_first=True
            )
            self.temporal = nn.TransformerEncoder(
                layer, config.layers, enable_nested_tensor=False,
                norm=None if config.temporal_dim else nn.LayerNorm(D),
            )  # fmt: skip
        if config.learn_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(config.temperature).log())

    def objective_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the self-supervised objective uses."""
        return [self.log_temperature] if self.config.learn_temperature else []

    def fit_lines(self, lines_VE: Tensor) -> None:
        """Learn the moments of line vectors, which whitening needs; an ALBERT reads no vectors."""
        if self.config.window_encoder == "lines":
            self.whiten.fit(lines_VE)

    def windows(self, batch: UserBatch) -> Tensor:
        """z = g_ν: window embeddings [B, W, D]; empty and unknown windows have vectors of own."""
        if self.config.window_encoder == "albert":
            z_BWD = self._read_texts(batch)
        else:
            z_BWD = self._sum_lines(batch)
        z_BWD = torch.where(batch.filled_BW.unsqueeze(-1), z_BWD, self.empty_D.expand_as(z_BWD))
        return torch.where(batch.known_BW.unsqueeze(-1), z_BWD, self.unknown_D.expand_as(z_BWD))

    def _read_texts(self, batch: UserBatch) -> Tensor:
        text = batch.window_text
        assert text is not None, "cut the batch with Collate(line_tokens=…)"
        empty_BWD = self.empty_D.expand(*batch.filled_BW.shape, -1)
        if len(text.tokens_NL) == 0:
            return empty_BWD
        mask_NL = text.tokens_NL != PAD
        hidden_NLD = contextual(self.albert, text.tokens_NL, mask_NL, text.segments_NL)
        z_ND = self.read(mean_pool(hidden_NLD, mask_NL)).to(empty_BWD.dtype)
        return empty_BWD.masked_scatter(batch.filled_BW.unsqueeze(-1), z_ND)

    def _sum_lines(self, batch: UserBatch) -> Tensor:
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
        return z.view(B, W, -1)

    def contexts(self, z_BWD: Tensor) -> Tensor:
        """c = g_μ(z), [B, W, D]; c_t sees windows up to t only."""
        W = z_BWD.shape[1]
        plain = self.config.temporal_dim is None
        x_BWH = (z_BWD if plain else self.down(z_BWD)) + self.lag_WH[-W:]
        if isinstance(self.temporal, nn.GRU):
            h_BWH = self.temporal(x_BWH)[0]
        else:
            mask = nn.Transformer.generate_square_subsequent_mask(W, device=z_BWD.device)
            h_BWH = self.temporal(x_BWH, mask=mask, is_causal=True)
        return h_BWH if plain else z_BWD + self.up(h_BWH)

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
            temperature=(
                self.log_temperature.exp() if config.learn_temperature else config.temperature
            ),
        )
        cycle = losses.cyclic(c_BWD, batch.filled_BW[:, :past], period=config.cycle)
        total = config.forecast_weight * forecast + config.cycle_weight * cycle
        return total, {"forecast": forecast, "cycle": cycle}


def _albert(config: BehaviourConfig) -> AlbertConfig:
    return albert_config(
        vocabulary=config.vocabulary, dim=config.text_dim, layers=config.text_layers,
        heads=config.text_heads, embedding_dim=config.text_embedding,
        max_tokens=config.max_tokens, segments=len(EVENT_SOURCES),
    )  # fmt: skip
