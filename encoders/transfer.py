"""Downstream models: a light network on frozen embeddings, and what it is compared with.

One4all section 4.2.1: U-MLP reads the frozen embedding alone; P-Trans reads raw purchases, T-Trans
the history of the task, each with a small Transformer trained from scratch; UP-Trans is P-Trans
with the embedding in the place of [CLS]. A fine-tuned encoder has the same head.

    model = UMlp(embedding_dim=384, out=1)
    logits_B = model(Inputs(vectors_BU=vectors)).squeeze(1)

Shapes: B users, U width of the embedding, L places of a log, H hidden, O width of the output,
M items, E width of their text vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from encoders.logs import LogEmbedding, Logs

LAYERS, HIDDEN, HEADS = 4, 128, 4
MLP = (512, 256, 128, 64)
_DROPOUT = 0.1


@dataclass(frozen=True)
class Inputs:
    """What is known of some users; a model reads its part."""

    vectors_BU: Tensor | None = None
    purchases: Logs | None = None
    task_log: Logs | None = None
    users_B: Tensor | None = None  # int64 rows of all users: what a fine-tuned encoder looks up

    def rows(self, index: Tensor) -> Inputs:
        """The same of some of the users."""
        return Inputs(
            None if self.vectors_BU is None else self.vectors_BU[index],
            None if self.purchases is None else self.purchases.rows(index),
            None if self.task_log is None else self.task_log.rows(index),
            None if self.users_B is None else self.users_B[index],
        )


class Encoder(Protocol):
    """A pre-trained encoder that can be tuned further: rows of users → vectors [B, U]."""

    @property
    def dim(self) -> int: ...

    @property
    def events(self) -> int:
        """How many of a user's latest events it reads."""
        ...

    def parameters(self) -> Any: ...

    def __call__(self, users_B: Tensor) -> Tensor: ...


def mlp(width: int, out: int) -> nn.Sequential:
    """input-512-256-128-64-output with ReLU."""
    layers: list[nn.Module] = []
    for wider in MLP:
        layers += [nn.Linear(width, wider), nn.ReLU()]
        width = wider
    return nn.Sequential(*layers, nn.Linear(width, out))


class UMlp(nn.Module):
    """A feed-forward network on frozen embeddings."""

    def __init__(self, *, embedding_dim: int, out: int):
        super().__init__()
        self.head = mlp(embedding_dim, out)

    def forward(self, inputs: Inputs) -> Tensor:
        """[B, O]"""
        output: Tensor = self.head(_given(inputs.vectors_BU, "vectors_BU"))
        return output


class SharedLayer(nn.Module):
    """One Transformer layer, applied as many times as the model is deep (as in ALBERT).

    Attention is written out: at some hundred places torch's fused kernel takes twice the time on a
    CPU. The last application computes the state of [CLS] alone, since nothing else is read. Under
    autocast the states between layers have its precision too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.out = nn.Linear(HIDDEN, HIDDEN)
        self.wide, self.narrow = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)
        self.attended, self.done = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x_BLH: Tensor, mask_B11L: Tensor, *, last: bool) -> Tensor:
        """[B, L, H], or [B, 1, H] of the first place if it is the last application.

        Args:
            mask_B11L: what is added to the scores of a place: 0, or -inf to hide it.
        """
        batch, length, _ = x_BLH.shape
        split = self.into(x_BLH).view(batch, length, 3, HEADS, HIDDEN // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if last:
            query, x_BLH = query[:, :, :1], x_BLH[:, :1]
        scores = (query * (HIDDEN // HEADS) ** -0.5) @ key.transpose(-1, -2) + mask_B11L
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x_BLH = self.attended(x_BLH + self.dropout(self.out(mixed)))
        fed = self.narrow(self.wide(x_BLH).relu())
        done: Tensor = self.done(x_BLH + self.dropout(fed))
        return done


class LogTransformer(nn.Module):
    """A small Transformer over a log, whose layers share their weights; the state of [CLS].

    Args:
        embedding_dim: width of the user embedding that stands in the place of [CLS]; 0 for none.
    """

    def __init__(self, embedding: LogEmbedding, *, embedding_dim: int = 0):
        super().__init__()
        self.embedding = embedding
        self.cls = nn.Parameter(torch.randn(HIDDEN) * 0.02)
        self.user = nn.Linear(embedding_dim, HIDDEN) if embedding_dim else None
        self.layer = SharedLayer()
        self.norm = nn.LayerNorm(HIDDEN)

    def forward(self, logs: Logs, vectors_BU: Tensor | None = None) -> Tensor:
        """[B, H]"""
        tokens_BLH = self.embedding(logs)
        first_BH = self.cls.expand(len(tokens_BLH), -1)
        if self.user is not None:
            first_BH = self.user(_given(vectors_BU, "vectors_BU"))
        states = self.norm(torch.cat([first_BH.unsqueeze(1), tokens_BLH], 1))
        if torch.is_autocast_enabled(states.device.type):
            states = states.to(torch.get_autocast_dtype(states.device.type))
        hidden_B11L = nn.functional.pad(~logs.mask_NL, (1, 0))[:, None, None]  # never [CLS]
        mask_B11L = states.new_zeros(hidden_B11L.shape).masked_fill(hidden_B11L, -torch.inf)
        for depth in range(LAYERS):
            states = self.layer(states, mask_B11L, last=depth + 1 == LAYERS)
        state_BH: Tensor = states[:, 0]
        return state_BH


class PTrans(nn.Module):
    """A Transformer over raw purchases, trained from scratch; with embeddings it is UP-Trans."""

    def __init__(self, *, embedding: LogEmbedding, out: int, embedding_dim: int = 0):
        super().__init__()
        self.encoder = LogTransformer(embedding, embedding_dim=embedding_dim)
        self.head = mlp(HIDDEN, out)

    def forward(self, inputs: Inputs) -> Tensor:
        """[B, O]"""
        purchases = _given(inputs.purchases, "purchases")
        output: Tensor = self.head(self.encoder(purchases, inputs.vectors_BU))
        return output


class TTrans(nn.Module):
    """A Transformer over the history of the task itself."""

    def __init__(self, *, embedding: LogEmbedding, out: int):
        super().__init__()
        self.encoder = LogTransformer(embedding)
        self.head = mlp(HIDDEN, out)

    def forward(self, inputs: Inputs) -> Tensor:
        """[B, O]"""
        output: Tensor = self.head(self.encoder(_given(inputs.task_log, "task_log")))
        return output


class FineTuned(nn.Module):
    """A pre-trained encoder with the head of U-MLP on top, all of it trained (Table 5)."""

    def __init__(self, *, encoder: Encoder, out: int):
        super().__init__()
        self.encoder = encoder
        self.head = mlp(encoder.dim, out)

    def forward(self, inputs: Inputs) -> Tensor:
        """[B, O]"""
        output: Tensor = self.head(self.encoder(_given(inputs.users_B, "users_B")))
        return output


class Recommender(nn.Module):
    """Users and items in one space: the score of a pair is a dot product (4.2.2).

    The items' sentence vectors stay as they are but for one linear map, without which what all
    sentences share would be most of every score.

    Args:
        user: a model with ``out`` equal to ``dim``.
        texts_ME: frozen sentence vectors of the items.
        prior_M: what is added to an item's every score; the paper's is 0.
    """

    texts_ME: Tensor
    prior_M: Tensor

    def __init__(
        self, user: nn.Module, texts_ME: Tensor, *, dim: int, prior_M: Tensor | None = None
    ):
        super().__init__()
        self.user = user
        self.item = nn.Linear(texts_ME.shape[1], dim)
        self.register_buffer("texts_ME", texts_ME, persistent=False)
        prior_M = torch.zeros(len(texts_ME)) if prior_M is None else prior_M
        self.register_buffer("prior_M", prior_M)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits of every user with every item, [B, M]."""
        logits_BM: Tensor = self.user(inputs) @ self.item(self.texts_ME).T + self.prior_M
        return logits_BM


Build = Callable[[int], nn.Module]
"""Makes a fresh model of a given output width."""


def _given(value: Any, name: str) -> Any:
    if value is None:
        raise ValueError(f"inputs: expected {name}, which this model reads, got none")
    return value
