"""A window's text: the lines of its three sources as one row of word pieces (FOUND 4.2.1).

Each line ends with a separator; a token's segment says which source (bills, page clicks,
mini-programs) it comes from. Rows are made once per history and looked up by every batch.

A window longer than the limit keeps its most frequent lines, whichever source they are from.
Lines of equal frequency stay in an order that changes from week to week, so that none is always
cut. What is kept is read source by source. All of it depends on the window alone: training and
serving see the same row.

Shapes: R rows of the history, N non-empty windows, L tokens, e one line in one window.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.lists import Lists
from feature_repo.schema import EVENT_SOURCES


@dataclass(frozen=True)
class WindowText:
    """Texts of the non-empty windows of a batch, in the order of ``UserBatch.filled_BW``."""

    tokens_NL: Tensor  # int64, 0 = padding
    segments_NL: Tensor  # int64, index into schema.EVENT_SOURCES

    def to(self, device: torch.device | str) -> WindowText:
        """The same texts on another device."""
        return WindowText(self.tokens_NL.to(device), self.segments_NL.to(device))


class WindowTexts:
    """Token rows of every non-empty window of a history.

    Args:
        lists: event source → its lines per row.
        lines: the distinct lines.
        times_R: when each row's window ends, microseconds.
        tokenize: word pieces of one line, closed by a separator.
        max_tokens: L, the limit of a window.
    """

    def __init__(
        self,
        lists: Mapping[str, Lists],
        lines: Sequence[str],
        times_R: np.ndarray,
        tokenize: Callable[[str], list[int]],
        max_tokens: int,
    ):
        pieces = [tokenize(line) for line in lines]
        size = np.array([len(piece) for piece in pieces], np.int64)
        begin = np.cumsum(size) - size
        flat = np.array([token for piece in pieces for token in piece], np.int32)
        mark = np.array([zlib.crc32(line.encode()) for line in lines], np.uint32)

        row_e, source_e, line_e, weight_e = _entries(lists)
        turn_e = mark[line_e] * (_week(times_R)[row_e] * np.uint32(2) + np.uint32(1))
        order = np.lexsort((turn_e, -weight_e, row_e))
        row_e, source_e, line_e = row_e[order], source_e[order], line_e[order]
        ends_e = _offset(row_e, size[line_e]) + size[line_e]
        first_e = np.r_[True, row_e[1:] != row_e[:-1]] if len(row_e) else np.zeros(0, bool)
        kept = (ends_e <= max_tokens) | first_e  # a line that is too long alone is cut
        row_e, source_e, line_e = row_e[kept], source_e[kept], line_e[kept]
        by_source = np.lexsort((source_e, row_e))
        row_e, source_e, line_e = row_e[by_source], source_e[by_source], line_e[by_source]

        rows, slot_e = np.unique(row_e, return_inverse=True)
        self._slot_R = np.full(len(times_R), -1, np.int64)
        self._slot_R[rows] = np.arange(len(rows))
        self._tokens_NL = np.zeros((len(rows), max_tokens), np.int32)
        self._segments_NL = np.zeros((len(rows), max_tokens), np.int8)
        length_e = size[line_e]
        within = np.arange(length_e.sum()) - np.repeat(np.cumsum(length_e) - length_e, length_e)
        column = np.repeat(_offset(row_e, length_e), length_e) + within
        fits = column < max_tokens
        at = (np.repeat(slot_e, length_e)[fits], column[fits])
        self._tokens_NL[at] = flat[np.repeat(begin[line_e], length_e) + within][fits]
        self._segments_NL[at] = np.repeat(source_e, length_e)[fits]

    def __call__(self, rows: np.ndarray) -> WindowText:
        """Texts of these rows, empty windows left out, padded to the longest of them."""
        slots = self._slot_R[rows]
        slots = slots[slots >= 0]
        tokens_NL = self._tokens_NL[slots].astype(np.int64)
        longest = max(1, int((tokens_NL != 0).sum(1).max(initial=0)))
        return WindowText(
            torch.from_numpy(tokens_NL[:, :longest].copy()),
            torch.from_numpy(self._segments_NL[slots, :longest].astype(np.int64)),
        )


def _entries(lists: Mapping[str, Lists]) -> tuple[np.ndarray, ...]:
    """Every line in every row: row, source, line, weight."""
    none = (np.zeros(0, np.int64),) * 3 + (np.zeros(0, np.float32),)
    parts = [none]
    for source, each in lists.items():
        row = np.repeat(np.arange(len(each.length)), each.length)
        code = np.full(len(row), EVENT_SOURCES.index(source), np.int64)
        parts.append((row, code, each.ids, each.weights))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _offset(row_e: np.ndarray, size_e: np.ndarray) -> np.ndarray:
    """Sum of the sizes before each entry within its row; rows are contiguous."""
    before = np.cumsum(size_e) - size_e
    if not len(row_e):
        return before
    first = np.r_[True, row_e[1:] != row_e[:-1]]
    return before - before[first][np.cumsum(first) - 1]


def _week(times_R: np.ndarray) -> np.ndarray:
    return (times_R // (7 * 86_400 * 1_000_000)).astype(np.uint32)
