"""List columns, compressed: many rows of weighted ids in four flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Lists:
    """Row r holds ``ids[start[r]:start[r] + length[r]]`` and the weights beside them."""

    start: np.ndarray
    length: np.ndarray
    ids: np.ndarray
    weights: np.ndarray

    def cut(self, rows_BW: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The lists of many rows, one after another; row -1 is empty.

        Returns:
            ids, offsets [B * W], weights, lengths [B, W].
        """
        rows = rows_BW.reshape(-1)
        length = np.where(rows >= 0, self.length[rows], 0)
        offsets = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64)
        within = np.arange(length.sum()) - np.repeat(offsets, length)
        position = np.repeat(self.start[rows], length) + within
        return self.ids[position], offsets, self.weights[position], length.reshape(rows_BW.shape)


def compressed(column: pa.ChunkedArray, counts: pa.ChunkedArray, texts: list[str]) -> Lists:
    """A list column of texts as positions in ``texts``, with the weights of ``counts``."""
    length = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    values = pc.list_flatten(column)
    ids = pc.index_in(values, value_set=pa.array(texts, values.type)).to_numpy().astype(np.int64)
    start = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64)
    weights = pc.list_flatten(counts).to_numpy().astype(np.float32)
    return Lists(start, length, ids, weights)


def merged(parts: list[Lists]) -> Lists:
    """Row-wise concatenation: row r holds the lists of row r of every part, in order."""
    length = np.sum([part.length for part in parts], axis=0)
    start = np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64)
    ids = np.zeros(length.sum(), np.int64)
    weights = np.zeros(length.sum(), np.float32)
    at = start.copy()
    for part in parts:
        rows = np.arange(len(length))[:, None]
        these, offsets, these_weights, _ = part.cut(rows)
        within = np.arange(len(these)) - np.repeat(offsets, part.length)
        position = np.repeat(at, part.length) + within
        ids[position], weights[position] = these, these_weights
        at = at + part.length
    return Lists(start, length, ids, weights)


def distinct(column: pa.ChunkedArray) -> set[str]:
    """The texts that occur in a list column."""
    return set(pc.unique(pc.list_flatten(column)).to_pylist())
