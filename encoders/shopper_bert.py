"""ShopperBERT: a user from purchases alone, by masked purchase prediction (One4all section 3).

A token's product vector is one layer over its four category embeddings and its text, itself
through one layer (eq. 1). It is averaged with the five embeddings of the date and that of the
position, and a Transformer reads the log. Nine heads of two layers predict what was hidden of
15 % of the tokens, categories and date; the loss is the mean of their cross-entropies (eq. 2).
``mp`` predicts from each hidden token's last state, and the user is the mean of the last states;
``cls`` predicts from, and is, the state of a token put before the log.

A field with one value in training has nothing to predict: its cross-entropy is 0 whatever the
weights, so it does not count as a task. A value that training never saw has a zero embedding.

A mean says what share of a log is what, not how much of it there is. Shares lose most of what a
count of categories knows about the next purchase (docs/log.md), so there are two other ways to read
a log, not from the paper. ``pooling="counts"``: the positive and the negative part of each
coordinate is added up over the tokens, and the logarithm taken: soft counts, [2H]. ``"words"``:
beside them the logarithm of how many purchases were of each product word (``product_words.py``),
[2H + K]; the code book is fitted after training.

A log longer than ``length`` is read in stretches, the latest first, and the user is made of all of
their tokens. A user without purchases is *cold*: the vector is 0, and is no taste.

Shapes as in ``purchases.py``; H width, K words.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.product_words import ProductWords
from encoders.purchase_masking import MASK, Masked, mask_purchases
from encoders.purchases import CATEGORIES, DATES, FIELDS, UNKNOWN, PurchaseBatch

_BESIDE = 0.3
"""Deviation of a date's embeddings at the start: five of the product's size would drown it."""

_WORDS_SHARE = 2.0
"""Variance of the counts of words against that of soft counts; 1 to 8 differ little."""


@dataclass(frozen=True)
class ShopperBertConfig:
    """Sizes, fitted vocabularies, and how the pre-training data are drawn."""

    vocabularies: dict[str, list] = field(default_factory=dict)
    text_width: int = 384
    dim: int = 128
    layers: int = 2
    heads: int = 4
    length: int = 128  # T, of one stretch
    stretches: int = 1  # how many of them, the latest, make a user
    variant: Literal["mp", "cls"] = "mp"
    pooling: Literal["mean", "counts", "words"] = "mean"  # the others: not from the paper
    words: int = 384  # K
    dropout: float = 0.1
    mask_share: float = 0.15
    whole_visits: bool = False  # hide all purchases of a moment together
    augment_share: float = 0.3  # of a batch
    crop_share: float = 0.5  # of what is augmented; the rest is shuffled
    least_per_month: float = 0.5  # users who buy less are left out of pre-training
    top_share: float = 0.01  # and so are those who buy most

    def __post_init__(self) -> None:
        if self.variant not in ("mp", "cls"):
            raise ValueError(f"variant: expected 'mp' or 'cls', got {self.variant!r}")
        counts = self.pooling in ("counts", "words")
        if not (self.pooling == "mean" or (counts and self.variant == "mp")):
            raise ValueError(
                "pooling: expected 'mean', or with variant 'mp' 'counts' or 'words', got "
                f"{self.pooling!r} with {self.variant!r}"
            )
        if self.words < 1:
            raise ValueError(f"words: expected at least 1, got {self.words}")
        if self.dim % self.heads:
            raise ValueError(f"dim={self.dim} must be a multiple of heads={self.heads}")
        if self.length < 1 or self.stretches < 1:
            raise ValueError(
                f"length and stretches: expected at least 1, got {self.length}, {self.stretches}"
            )

    @property
    def read(self) -> dict[str, int]:
        """What of a log makes a user, as ``PurchaseCollate.latest`` takes it."""
        return {"length": self.length, "stretches": self.stretches}


class ShopperBert(nn.Module):
    """The encoder and its pretext tasks."""

    config_class = ShopperBertConfig

    def __init__(self, config: ShopperBertConfig):
        super().__init__()
        self.config = config
        H, sizes = config.dim, {name: len(config.vocabularies[name]) for name in FIELDS}
        self.categories = _embeddings([sizes[name] for name in CATEGORIES], H, std=1.0)
        self.dates = _embeddings([sizes[name] for name in DATES], H, std=_BESIDE)
        self.text = nn.Linear(config.text_width, H)  # f_text of eq. 1
        self.product = nn.Linear((len(CATEGORIES) + 1) * H, H)  # f_prod
        nn.init.normal_(self.product.weight, std=self.product.in_features**-0.5)
        self.position = nn.Embedding(config.length, H)  # counted back from the latest purchase
        self.position.weight = nn.Parameter(_waves(config.length, H))
        self.mask_H = nn.Parameter(torch.randn(H))
        if config.variant == "cls":
            self.cls_H = nn.Parameter(torch.randn(H))
        self.norm = nn.LayerNorm(H)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            H, config.heads, 4 * H, config.dropout, "gelu", batch_first=True, norm_first=True
        )  # 4H: the paper's footnote; norm first, as twenty layers then train without care
        self.transformer = nn.TransformerEncoder(
            layer, config.layers, norm=nn.LayerNorm(H), enable_nested_tensor=False
        )
        if config.pooling == "words":
            self.words = ProductWords(H, config.words)
            self.register_buffer("words_scale", torch.ones(()))
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(H, H), nn.GELU(), nn.Linear(H, size))
                for name, size in sizes.items()
                if size > 1
            }
        )

    def tokens(self, batch: PurchaseBatch, masked: Masked | None = None) -> Tensor:
        """The Transformer's input, [R, T, H]: means of product, date and position."""
        products_VH = self._products(batch)
        product_RT, dates_RTD = batch.product_RT, batch.dates_RTD
        if masked is not None:
            source = masked.source_RT.clamp(min=0)
            product_RT = product_RT.flatten()[source]
            dates_RTD = dates_RTD.flatten(0, 1)[source]
        x_RTH = functional.embedding(product_RT, products_VH)
        for part, table in enumerate(self.dates):
            x_RTH = x_RTH + table(dates_RTD[..., part])
        if masked is not None:
            hidden = (masked.source_RT == MASK).unsqueeze(-1)
            x_RTH = torch.where(hidden, self.mask_H.to(x_RTH.dtype), x_RTH)
        length_R1 = batch.filled_RT.sum(1, keepdim=True)
        place_T = torch.arange(product_RT.shape[1], device=product_RT.device)
        back_RT = (length_R1 - 1 - place_T).clamp(min=0)
        return self.dropout(self.norm((x_RTH + self.position(back_RT)) / (len(DATES) + 2)))

    def states(
        self, batch: PurchaseBatch, masked: Masked | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Last hidden states of the tokens [R, T, H], and of CLS [R, H] if there is one."""
        x_RTH, filled_RT = self.tokens(batch, masked), batch.filled_RT
        if self.config.variant == "mp":
            return self.transformer(x_RTH, src_key_padding_mask=~filled_RT), None
        cls_R1H = self.cls_H.to(x_RTH.dtype).expand(len(x_RTH), 1, -1)
        filled = functional.pad(filled_RT, (1, 0), value=True)
        h_RTH = self.transformer(torch.cat([cls_R1H, x_RTH], 1), src_key_padding_mask=~filled)
        return h_RTH[:, 1:], h_RTH[:, 0]

    @property
    def width(self) -> int:
        """Of a user's vector."""
        H = self.config.dim
        return {"mean": H, "counts": 2 * H, "words": 2 * H + self.config.words}[self.config.pooling]

    def forward(self, batch: PurchaseBatch) -> Tensor:
        """The users' vectors, [U, width]; 0 for a user without purchases."""
        if not len(batch.owner_R):
            return self.mask_H.new_zeros(len(batch), self.width)
        if self.config.pooling == "words":
            return torch.cat([self._counts(batch), self.words_scale * self._words(batch)], -1)
        return self._counts(batch) if self.config.pooling == "counts" else self._mean(batch)

    @torch.no_grad()
    def fit_words(self, everyone: PurchaseBatch, some: PurchaseBatch) -> None:
        """Find the product words in the logs of ``everyone``, once the model is trained.

        Over ``some`` users, counts of words get :data:`_WORDS_SHARE` times the total variance that
        soft counts have.
        """
        uses_V = everyone.product_RT[everyone.filled_RT].bincount(minlength=len(everyone.texts_VE))
        self.words.fit(self._products(everyone), uses_V)
        if len(some) > 1:
            counts, words = (part.var(0).sum() for part in (self._counts(some), self._words(some)))
            self.words_scale.copy_((_WORDS_SHARE * counts / words.clamp(min=1e-6)).sqrt())

    def _mean(self, batch: PurchaseBatch) -> Tensor:
        h_RTH, cls_RH = self.states(batch)
        filled_RT1 = batch.filled_RT.unsqueeze(-1)
        weight_R1 = filled_RT1.sum(1).to(h_RTH.dtype)
        sum_RH = (h_RTH * filled_RT1).sum(1) if cls_RH is None else cls_RH * weight_R1
        return self._by_user(batch, sum_RH) / self._by_user(batch, weight_R1).clamp(min=1.0)

    def _counts(self, batch: PurchaseBatch) -> Tensor:
        """Soft counts, [U, 2H]."""
        h_RTH, _ = self.states(batch)
        parts_RTW = torch.cat([h_RTH, -h_RTH], -1).relu()
        return self._by_user(batch, (parts_RTW * batch.filled_RT.unsqueeze(-1)).sum(1)).log1p()

    def _words(self, batch: PurchaseBatch) -> Tensor:
        """How many purchases were of each word, logarithms [U, K]."""
        K = self.config.words
        word_RT = self.words(self._products(batch))[batch.product_RT]
        place_n = (batch.owner_R[:, None] * K + word_RT)[batch.filled_RT]
        return place_n.bincount(minlength=len(batch) * K).view(len(batch), K).float().log1p()

    def _by_user(self, batch: PurchaseBatch, x_RW: Tensor) -> Tensor:
        """Sums over each user's stretches, [U, W]."""
        return x_RW.new_zeros(len(batch), x_RW.shape[1]).index_add(0, batch.owner_R, x_RW)

    def loss(self, batch: PurchaseBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross-entropy over the tasks that have something to predict (eq. 2), and each."""
        config = self.config
        masked = mask_purchases(
            batch.filled_RT, batch.visit_RT, share=config.mask_share,
            whole_visits=config.whole_visits,
        )  # fmt: skip
        logits = self.predict(batch, masked)
        targets_mF = batch.codes_RTF[masked.chosen_RT]
        parts = {name: targets_mF.new_zeros((), dtype=torch.float32) for name in FIELDS}
        for name, logits_mC in logits.items():
            target_m = targets_mF[:, FIELDS.index(name)]
            summed = functional.cross_entropy(
                logits_mC.float(), target_m - 1, reduction="sum", ignore_index=UNKNOWN - 1
            )
            parts[name] = summed / (target_m != UNKNOWN).sum().clamp(min=1)
        if not logits:
            return self.mask_H.sum() * 0.0, parts
        return torch.stack([parts[name] for name in logits]).mean(), parts

    def predict(self, batch: PurchaseBatch, masked: Masked) -> dict[str, Tensor]:
        """Logits [m, classes] of each task for the m chosen tokens, in the order of the batch."""
        h_RTH, cls_RH = self.states(batch, masked)
        if cls_RH is not None:
            h_RTH = cls_RH.unsqueeze(1).expand_as(h_RTH)
        chosen_mH = h_RTH[masked.chosen_RT]
        return {name: head(chosen_mH) for name, head in self.heads.items()}

    def _products(self, batch: PurchaseBatch) -> Tensor:
        """Eq. 1 for every distinct product of the batch, [V, H]."""
        parts = [table(batch.categories_VK[:, k]) for k, table in enumerate(self.categories)]
        text_VE = batch.texts_VE * self.config.text_width**0.5  # unit vectors are short
        products_VH: Tensor = self.product(torch.cat([*parts, self.text(text_VE)], -1))
        return products_VH


def _embeddings(sizes: list[int], width: int, *, std: float) -> nn.ModuleList:
    """One table per field, the code of unknown values staying at zero."""
    tables = [nn.Embedding(1 + n, width, padding_idx=UNKNOWN) for n in sizes]
    for table in tables:
        nn.init.normal_(table.weight[1:], std=std)
    return nn.ModuleList(tables)


def _waves(length: int, width: int) -> Tensor:
    """Sines and cosines of unit deviation, [T, H] (Vaswani et al., 2017), to start positions with.

    Places near each other are alike from the first step on, so that attention soon finds the other
    purchases of a basket: from random embeddings it takes many times as long (docs/log.md).
    """
    place_T1 = torch.arange(length).unsqueeze(1)
    rate_h = 10_000.0 ** (-torch.arange(0, width, 2) / width)
    waves = torch.stack([(place_T1 * rate_h).sin(), (place_T1 * rate_h).cos()], -1)
    return waves.flatten(1)[:, :width] * 2**0.5
