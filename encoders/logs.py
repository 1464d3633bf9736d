"""Logs of users as tensors, and one vector per logged event (One4all eq. 1).

A log is what a user did, oldest first: purchases with their categories, text and date, or the
history of one task alone, which may have no categories. Empty places stand at the end.

Shapes: N users, L places, C categories, D parts of the date, V texts, E their width, H hidden,
K values of a category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

NONE = 0  # of every category and date part: unknown, or no event


@dataclass(frozen=True)
class Logs:
    """The latest L events of N users.

    >>> logs = Logs.empty(2, length=3, categories=4, dates=5)
    >>> logs.categories_NLC.shape, logs.rows(torch.tensor([1])).mask_NL.shape
    (torch.Size([2, 3, 4]), torch.Size([1, 3]))
    """

    categories_NLC: Tensor  # int64, 0 = unknown
    dates_NLD: Tensor  # int64, 0 = unknown
    texts_NL: Tensor  # int64, rows of the table of text vectors
    mask_NL: Tensor  # bool, True where there is an event

    @classmethod
    def empty(cls, num: int, *, length: int, categories: int, dates: int) -> Logs:
        """Users of whom nothing is logged."""
        return cls(
            torch.zeros(num, length, categories, dtype=torch.long),
            torch.zeros(num, length, dates, dtype=torch.long),
            torch.zeros(num, length, dtype=torch.long),
            torch.zeros(num, length, dtype=torch.bool),
        )

    def __len__(self) -> int:
        return len(self.mask_NL)

    def rows(self, index_B: Tensor) -> Logs:
        """The logs of some users, cut to the longest of them."""
        some = self.whole(index_B)
        used = max(1, int(some.mask_NL.sum(1).max())) if len(some) else 1
        return Logs(
            some.categories_NLC[:, :used], some.dates_NLD[:, :used], some.texts_NL[:, :used],
            some.mask_NL[:, :used],
        )  # fmt: skip

    def whole(self, index_B: Tensor) -> Logs:
        """The logs of some users at their full width."""
        return Logs(
            self.categories_NLC[index_B], self.dates_NLD[index_B], self.texts_NL[index_B],
            self.mask_NL[index_B],
        )  # fmt: skip


class LogEmbedding(nn.Module):
    """Product and date of each event as one vector (eq. 1).

    Categories and text are concatenated and projected by a single layer; that, the embeddings of
    the parts of the date and the position are averaged.

    Args:
        categories: how many values each category has, 0 (unknown) included.
        dates: the same of each part of the date.
        texts_VE: frozen sentence vectors, one row per distinct text.
        length: the most events a log may have.
    """

    texts_VE: Tensor

    def __init__(
        self, *, categories: Sequence[int], dates: Sequence[int], texts_VE: Tensor, hidden: int,
        length: int,
    ):  # fmt: skip
        super().__init__()
        self.register_buffer("texts_VE", texts_VE, persistent=False)
        self.categories = _tables(categories, hidden)
        self.dates = _tables(dates, hidden)
        self.text = nn.Linear(texts_VE.shape[1], hidden)
        self.product = nn.Linear((len(categories) + 1) * hidden, hidden)
        self.position = nn.Embedding(length, hidden)

    def forward(self, logs: Logs) -> Tensor:
        """One vector per place, [N, L, H]."""
        summed = self._products(logs)
        for d, each in enumerate(self.dates):
            summed = summed + each(logs.dates_NLD[..., d])
        places_L = torch.arange(summed.shape[1], device=summed.device)
        mean: Tensor = (summed + self.position(places_L)) / (len(self.dates) + 2)
        return mean

    def _products(self, logs: Logs) -> Tensor:
        """What ``product`` makes of categories and text side by side, [N, L, H].

        A projection of parts side by side is the sum of each part's own. So values and texts are
        projected, which are few, and looked up, instead of places, which are many.
        """
        *of_categories, of_text = self.product.weight.chunk(len(self.categories) + 1, 1)
        seen_V, at_NL = logs.texts_NL.unique(return_inverse=True)
        texts_VH = linear(self.text(self.texts_VE[seen_V]), of_text, self.product.bias)
        summed = embedding(at_NL, texts_VH)
        for c, (table, weight) in enumerate(zip(self.categories, of_categories, strict=True)):
            values_KH = linear(table.weight, weight)
            summed = summed + embedding(logs.categories_NLC[..., c], values_KH, padding_idx=NONE)
        return summed


def _tables(sizes: Sequence[int], hidden: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Embedding(size, hidden, padding_idx=NONE) for size in sizes)
