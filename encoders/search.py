"""Search encoder: a user's search texts → one vector (FOUND 4.2.3, eq. 12).

A small ALBERT, trained from scratch (no pre-trained one ships as a package) by replaced-token
detection: a smaller generator fills masked tokens, the encoder tells which were replaced.

Shapes: B users, L tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AlbertConfig, AlbertForMaskedLM, AlbertModel

from encoders import losses
from encoders.albert import MASK, PAD, albert_config, contextual
from encoders.batch import UserBatch
from encoders.text import mean_pool

_FIRST_WORD = 999  # codes below are special or unused


@dataclass(frozen=True)
class SearchConfig:
    """Sizes and objective of the search encoder."""

    vocabulary: int = 30_522
    dim: int = 128
    out_dim: int = 192
    layers: int = 2
    heads: int = 4
    max_tokens: int = 64
    embedding_dim: int = 64
    generator_dim: int = 64
    generator_layers: int = 1
    mask_rate: float = 0.15
    generator_weight: float = 1.0
    discriminator_weight: float = 50.0  # as in ELECTRA, whose scheme [20] follows


def _albert(config: SearchConfig, dim: int, layers: int, heads: int) -> AlbertConfig:
    return albert_config(
        vocabulary=config.vocabulary, dim=dim, layers=layers, heads=heads,
        embedding_dim=config.embedding_dim, max_tokens=config.max_tokens,
    )  # fmt: skip


class SearchEncoder(nn.Module):
    """f_ω of eq. 12 and its replaced-token detection."""

    config_class = SearchConfig

    def __init__(self, config: SearchConfig):
        super().__init__()
        self.config = config
        self.albert = AlbertModel(
            _albert(config, config.dim, config.layers, config.heads), add_pooling_layer=False
        )
        self.out = nn.Linear(config.dim, config.out_dim)
        self.generator = AlbertForMaskedLM(
            _albert(config, config.generator_dim, config.generator_layers, 2)
        )
        self.detect = nn.Linear(config.dim, 1)

    def objective_parameters(self) -> list[nn.Parameter]:
        """Parameters that only the self-supervised objective uses."""
        return [*self.generator.parameters(), *self.detect.parameters()]

    def forward(self, batch: UserBatch) -> Tensor:
        """The users' vectors, [B, D]; users without searches get the vector of padding."""
        mask_BL = batch.tokens_BL != PAD
        hidden_BLD = contextual(self.albert, batch.tokens_BL, mask_BL)
        mask_BL[:, 0] = True  # an empty row is its one padding token
        return self.out(mean_pool(hidden_BLD, mask_BL))

    def loss(self, batch: UserBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Generator's masked-token loss plus detection of its replacements."""
        tokens_BL = batch.tokens_BL[batch.tokens_BL.ne(PAD).any(1)]
        if len(tokens_BL) == 0:
            zero = self.detect.weight.sum() * 0.0
            return zero, {"generator": zero, "rtd": zero}
        valid = tokens_BL != PAD
        masked = valid & (tokens_BL > _FIRST_WORD) & (
            torch.rand(tokens_BL.shape, device=tokens_BL.device) < self.config.mask_rate
        )  # fmt: skip
        inputs = tokens_BL.masked_fill(masked, MASK)
        logits_BLV = self.generator(inputs, attention_mask=valid.long()).logits
        picked = logits_BLV[masked]
        generator = (
            nn.functional.cross_entropy(picked, tokens_BL[masked])
            if masked.any()
            else logits_BLV.sum() * 0.0
        )
        corrupted = tokens_BL.clone()
        if masked.any():
            sampled = torch.distributions.Categorical(logits=picked.detach()).sample()
            corrupted[masked] = sampled
        hidden = self.albert(corrupted, attention_mask=valid.long()).last_hidden_state
        rtd = losses.replaced_detection(
            self.detect(hidden).squeeze(-1), corrupted != tokens_BL, valid.float()
        )
        total = self.config.generator_weight * generator + self.config.discriminator_weight * rtd
        return total, {"generator": generator, "rtd": rtd}
