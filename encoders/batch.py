"""From weekly feature rows to tensors: the single collate of training, batch and online use.

:class:`History` holds the weekly rows of many users (from Feast, or made on the spot from one
user's raw events) in compressed columns; :class:`Collate` cuts a :class:`UserBatch` out of it.

Shapes: B samples, W windows (oldest first), E width of a line vector, C categorical columns,
F continuous columns, L search tokens, V distinct lines in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from encoders.assortment import AssortmentBatch, AssortmentConfig, AssortmentCounts
from encoders.habit_counts import HabitBatch, habit_counts
from encoders.lists import Lists, compressed, distinct, merged
from encoders.table import TableColumns
from encoders.templates import habit_sentence
from encoders.window_text import WindowText, WindowTexts
from feature_repo.schema import TIMESTAMP

WEEK_US = 7 * 24 * 3600 * 1_000_000

HABIT_COLUMNS = {"purchase": "bought", "click": "clicked", "browsing": "browsed"}  # by fact kind

TEXT_COLUMNS = {
    "bill": ("bills", "bill_counts"),
    "click": ("clicks", "click_counts"),
    "mini_program": ("mini_programs", "mini_program_counts"),
}


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


class History:
    """Weekly rows of many users, sorted by user and window, ready to be cut into batches.

    Args:
        behaviour: rows of ``schema.BEHAVIOUR_WEEKLY`` (dense: no week missing between two).
        profile: profile rows with the same keys, or None.
        search: search rows with the same keys, or None.
        line_vectors: embeds distinct lines, ``list[str] -> float32 [n, E]``.
        habits: habit rows with the same keys, or None.
        sentence_vectors: embeds the habits' sentences; default ``line_vectors``.
    """

    def __init__(
        self,
        behaviour: pa.Table,
        profile: pa.Table | None,
        search: pa.Table | None,
        line_vectors: Callable[[Sequence[str]], np.ndarray],
        habits: pa.Table | None = None,
        sentence_vectors: Callable[[Sequence[str]], np.ndarray] | None = None,
    ):
        order = [("user_id", "ascending"), ("event_timestamp", "ascending")]
        behaviour = behaviour.sort_by(order)
        self.user_ids = behaviour["user_id"].to_pylist()
        self.times_R = _microseconds(behaviour["event_timestamp"])
        self.profile = None if profile is None else _aligned(profile.sort_by(order), behaviour)
        users = np.asarray(self.user_ids, dtype=object)
        new_user = np.ones(len(users), bool)
        new_user[1:] = users[1:] != users[:-1]
        self._first_R = np.flatnonzero(new_user)[np.cumsum(new_user) - 1] if len(users) else users
        self._row = {
            key: row for row, key in enumerate(zip(self.user_ids, self.times_R, strict=True))
        }
        texts = sorted(set().union(*(distinct(behaviour[c]) for c, _ in TEXT_COLUMNS.values())))
        self.line_texts = texts
        self.lines_VE = line_vectors(texts or [""])[: len(texts)]
        self.lists = {
            source: compressed(behaviour[column], behaviour[counts], texts)
            for source, (column, counts) in TEXT_COLUMNS.items()
            if len(distinct(behaviour[column]))
        }
        self.search_texts: list[str] = []
        self.searches: Lists | None = None
        if search is not None and len(distinct(search["searches"])):
            search = _aligned(search.sort_by(order), behaviour)
            self.search_texts = sorted(distinct(search["searches"]))
            self.searches = compressed(
                search["searches"], search["search_counts"], self.search_texts
            )

        self.habits: Lists | None = None
        self.habit_names: list[tuple[str, str]] = []  # kind and subject
        self.habit_sentences: list[str] = []
        self.habits_VE = np.zeros((0, self.lines_VE.shape[-1]), np.float32)
        if habits is not None:
            aligned = _aligned(habits.sort_by(order), behaviour)
            self._read_habits(aligned, sentence_vectors or line_vectors)

    def _read_habits(
        self, table: pa.Table, sentence_vectors: Callable[[Sequence[str]], np.ndarray]
    ) -> None:
        """All kinds of habits in one list per row; each (kind, subject) has its plain sentence.

        What somebody searches for is a habit too, a search text its own subject.
        """
        parts, sentences = [], self.habit_sentences
        of_kind = {}
        for kind, column in HABIT_COLUMNS.items():
            subjects = sorted(distinct(table[column]))
            lists = compressed(table[column], table[f"{column}_counts"], subjects)
            of_kind[kind] = lists, subjects
        if self.searches is not None:
            of_kind["search"] = self.searches, self.search_texts
        for kind, (lists, subjects) in of_kind.items():
            parts.append(replace(lists, ids=lists.ids + len(sentences)))
            self.habit_names += [(kind, subject) for subject in subjects]
            sentences += [habit_sentence(kind, subject) for subject in subjects]
        if sentences:
            self.habits = merged(parts)
            self.habits_VE = sentence_vectors(sentences)

    def terms(self) -> dict[str, tuple[Lists, list[str]]]:
        """All that is counted in weekly rows, by name: event sources' lines, and habits."""
        counted = {source: (lists, self.line_texts) for source, lists in self.lists.items()}
        if self.habits is not None:
            counted["habit"] = (self.habits, self.habit_sentences)
        return counted

    def rows(self, user_ids: Sequence[str], cutoffs_us: Sequence[int]) -> np.ndarray:
        """Row of each (user, cut-off): the window that ends at the cut-off. int64, -1 = unknown."""
        pairs = zip(user_ids, cutoffs_us, strict=True)
        return np.array([self._row.get((u, int(t)), -1) for u, t in pairs], np.int64)

    def windows(self, rows_B: np.ndarray, num: int) -> np.ndarray:
        """Rows of the ``num`` windows up to each row, oldest first; -1 before the first. [B, W]"""
        steps = np.arange(num - 1, -1, -1)
        rows_BW = rows_B[:, None] - steps[None, :]
        rows_BW[rows_BW < self._first_R[rows_B][:, None]] = -1
        return rows_BW


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


def _aligned(table: pa.Table, keys: pa.Table) -> pa.Table:
    """``table``, checked to have the rows of ``keys`` in the same order."""
    for name in ("user_id", "event_timestamp"):
        if len(table) != len(keys) or not table[name].equals(keys[name]):
            raise ValueError(
                f"weekly views disagree on {name}: {len(table)} rows against {len(keys)}; "
                "build all views with the same as_of (python -m ray_jobs.build_features)"
            )
    return table


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(TIMESTAMP).cast(pa.int64()).to_numpy()


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
