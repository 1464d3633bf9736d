"""From a history to tensors: the single collate of training, batch and online use.

:class:`Collate` cuts a :class:`UserBatch` out of a :class:`~encoders.history.History`.

Shapes: B samples, W windows (oldest first), E width of a line vector, C categorical columns,
F continuous columns, L search tokens, V distinct lines in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from encoders.assortment import AssortmentBatch, AssortmentConfig, AssortmentCounts
from encoders.habit_counts import HabitBatch, habit_counts
from encoders.history import History
from encoders.table import TableColumns
from encoders.window_text import WindowText, WindowTexts


@dataclass(frozen=True)
class Bags:
    """Weighted bags of lines in EmbeddingBag form: one bag per sample and window."""

    ids: Tensor  # int64 [n], rows of UserBatch.lines_VE
    offsets: Tensor  # int64 [B * W]
    weights: Tensor  # float32 [n]


@dataclass(frozen=True)
class UserBatch:
    """The past of B users, each as known at its cut-off.

    >>> batch = example_batch(num_users=3, windows=4)
    >>> batch.filled_BW.shape, batch.codes_BC.shape[0]
    (torch.Size([3, 4]), 3)
    """

    lines_VE: Tensor
    bags: dict[str, Bags]  # event source → bags; a source nobody has is absent
    known_BW: Tensor  # bool: the user was known by the window's end
    filled_BW: Tensor  # bool: the window holds at least one line
    codes_BC: Tensor  # int64; 0 missing, 1 unknown value
    values_BF: Tensor  # float32, standardised; 0 where missing
    missing_BF: Tensor  # bool
    tokens_BL: Tensor  # int64, 0 = padding
    present_BM: Tensor  # bool: behaviour, tabular, search
    habits: HabitBatch | None = None
    window_text: WindowText | None = None  # where windows are read as text
    assortment: AssortmentBatch | None = None

    def __len__(self) -> int:
        return len(self.known_BW)

    def to(self, device: torch.device | str) -> UserBatch:
        """The same batch on another device."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if field.name not in ("bags", "habits", "window_text", "assortment")
        }
        text = None if self.window_text is None else self.window_text.to(device)
        bags = {
            name: Bags(bag.ids.to(device), bag.offsets.to(device), bag.weights.to(device))
            for name, bag in self.bags.items()
        }
        habits = None if self.habits is None else self.habits.to(device)
        assortment = None if self.assortment is None else self.assortment.to(device)
        return replace(
            self, bags=bags, habits=habits, window_text=text, assortment=assortment, **moved
        )


class Collate:
    """Cuts batches out of a history.

    Args:
        windows: W, how many weekly windows a sample looks back.
        table: fitted columns of the profile table; None leaves the modality out.
        search_tokens: token ids of a search text; None leaves the modality out.
        max_tokens: L, length at which a user's joined searches are cut.
        habit_windows: how many weeks habits are counted over; 0 leaves them out.
        line_tokens: token ids of a line, where windows are read as text.
        window_tokens: limit of a window's text.
        assortment: of the model; None leaves it out.
    """

    def __init__(
        self,
        history: History,
        *,
        windows: int,
        table: TableColumns | None = None,
        search_tokens: Callable[[str], list[int]] | None = None,
        max_tokens: int = 64,
        habit_windows: int = 0,
        line_tokens: Callable[[str], list[int]] | None = None,
        window_tokens: int = 64,
        assortment: AssortmentConfig | None = None,
    ):
        self.habit_windows = habit_windows
        self._assortment = assortment
        if assortment is not None:
            self._terms = AssortmentCounts(history.terms(), assortment.terms)
        self.history, self.num_windows, self.max_tokens = history, windows, max_tokens
        self._texts: WindowTexts | None = None
        if line_tokens is not None:
            self._texts = WindowTexts(
                history.lists, history.line_texts, history.times_R, line_tokens, window_tokens
            )
        self._codes = self._values = self._missing = None
        if table is not None and history.profile is not None:
            self._codes, self._values, self._missing = table.encode(history.profile)
        self._search_tokens: list[list[int]] = []
        if search_tokens is not None and history.searches is not None:
            self._search_tokens = [search_tokens(text) for text in history.search_texts]

    def __call__(self, rows_B: np.ndarray) -> UserBatch:
        """The batch for these rows of the history (see :meth:`History.rows`)."""
        rows_BW = self.history.windows(rows_B, self.num_windows)
        filled_BW = np.zeros(rows_BW.shape, bool)
        cut = {}
        for source, lists in self.history.lists.items():
            ids, offsets, weights, length_BW = lists.cut(rows_BW)
            cut[source] = (ids, offsets, weights)
            filled_BW |= length_BW > 0
        used = np.unique(np.concatenate([c[0] for c in cut.values()] or [np.zeros(0, np.int64)]))
        bags = {
            source: Bags(
                torch.from_numpy(np.searchsorted(used, ids)),
                torch.from_numpy(offsets),
                torch.from_numpy(np.log1p(weights).astype(np.float32)),
            )
            for source, (ids, offsets, weights) in cut.items()
        }
        tokens_BL = self._tokens(rows_BW)
        codes, values, missing = self._table(rows_B)
        present_BM = np.stack(
            [
                filled_BW.any(1),
                (rows_B >= 0) & (self._codes is not None),
                tokens_BL.any(1),
            ],
            1,
        )
        return UserBatch(
            lines_VE=torch.from_numpy(self.history.lines_VE[used]),
            bags=bags,
            known_BW=torch.from_numpy(rows_BW >= 0),
            filled_BW=torch.from_numpy(filled_BW),
            codes_BC=torch.from_numpy(codes),
            values_BF=torch.from_numpy(values),
            missing_BF=torch.from_numpy(missing),
            tokens_BL=torch.from_numpy(tokens_BL),
            present_BM=torch.from_numpy(present_BM),
            habits=self.habits(rows_B),
            window_text=None if self._texts is None else self._texts(rows_BW[filled_BW]),
            assortment=self.assortment(rows_B),
        )

    def assortment(self, rows_B: np.ndarray) -> AssortmentBatch | None:
        """What the users' baskets are made of, or None where the model does not ask."""
        if self._assortment is None:
            return None
        return self._terms(self.history.windows(rows_B, self._assortment.windows))

    def habits(self, rows_B: np.ndarray) -> HabitBatch | None:
        """Recency and frequency of the users' habits, or None where there are none to count."""
        if not self.habit_windows or self.history.habits is None:
            return None
        rows_BW = self.history.windows(rows_B, self.habit_windows)
        return habit_counts(self.history.habits, rows_BW, self.history.habits_VE)

    def _table(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._codes is None or self._values is None or self._missing is None:
            empty = np.zeros((len(rows_B), 0))
            return empty.astype(np.int64), empty.astype(np.float32), empty.astype(bool)
        known_B1 = (rows_B >= 0)[:, None]  # an unknown user has no profile, not the last one's
        return (
            np.where(known_B1, self._codes[rows_B], 0),
            np.where(known_B1, self._values[rows_B], np.float32(0)),
            np.where(known_B1, self._missing[rows_B], True),
        )

    def _tokens(self, rows_BW: np.ndarray) -> np.ndarray:
        """Search texts of the windows, newest first, joined and cut at ``max_tokens``."""
        if not self._search_tokens or self.history.searches is None:
            return np.zeros((len(rows_BW), 1), np.int64)
        tokens_BL = np.zeros((len(rows_BW), self.max_tokens), np.int64)
        lists = self.history.searches
        for b, rows_W in enumerate(rows_BW):
            sequence: list[int] = []
            for row in rows_W[::-1]:
                if row < 0 or len(sequence) >= self.max_tokens:
                    break
                start = lists.start[row]
                for text in lists.ids[start : start + lists.length[row]]:
                    sequence += self._search_tokens[text]
            cut = sequence[: self.max_tokens]
            tokens_BL[b, : len(cut)] = cut
        return tokens_BL


def example_batch(*, num_users: int = 2, windows: int = 3, width: int = 8) -> UserBatch:
    """A tiny batch with one event source, for examples and tests."""
    cells = num_users * windows
    bags = Bags(torch.arange(cells) % 4, torch.arange(cells), torch.ones(cells))
    generator = torch.Generator().manual_seed(0)
    return UserBatch(
        lines_VE=torch.randn(4, width, generator=generator),
        bags={"bill": bags},
        known_BW=torch.ones(num_users, windows, dtype=torch.bool),
        filled_BW=torch.ones(num_users, windows, dtype=torch.bool),
        codes_BC=torch.zeros(num_users, 0, dtype=torch.int64),
        values_BF=torch.zeros(num_users, 0),
        missing_BF=torch.zeros(num_users, 0, dtype=torch.bool),
        tokens_BL=torch.zeros(num_users, 1, dtype=torch.int64),
        present_BM=torch.tensor([[True, False, False]]).repeat(num_users, 1),
    )
