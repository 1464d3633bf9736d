"""The weekly rows of many users in compressed columns: what batches are cut from.

The rows come from Feast, or are made on the spot from one user's raw events.

Shapes: R rows (a user's windows stand together, oldest first), V distinct lines, E their width,
B samples, W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from encoders.lists import Lists, compressed, distinct, merged
from encoders.templates import habit_sentence
from feature_repo.errors import InputError
from feature_repo.schema import TIMESTAMP

HABIT_COLUMNS = {"purchase": "bought", "click": "clicked", "browsing": "browsed"}  # by fact kind

TEXT_COLUMNS = {
    "bill": ("bills", "bill_counts"),
    "click": ("clicks", "click_counts"),
    "mini_program": ("mini_programs", "mini_program_counts"),
}


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


def _aligned(table: pa.Table, keys: pa.Table) -> pa.Table:
    """``table``, checked to have the rows of ``keys`` in the same order."""
    for name in ("user_id", "event_timestamp"):
        if len(table) != len(keys) or not table[name].equals(keys[name]):
            raise InputError(
                f"weekly views disagree on {name}: {len(table)} rows against {len(keys)}; "
                "build all views with the same as_of (python -m ray_jobs.build_features)"
            )
    return table


def _microseconds(column: pa.ChunkedArray) -> np.ndarray:
    return column.cast(TIMESTAMP).cast(pa.int64()).to_numpy()
