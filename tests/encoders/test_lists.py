"""Compressed list columns against the plain lists they came from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from encoders.lists import Lists, compressed, distinct, merged

TEXTS = ["a", "b", "c"]
ROWS: list[tuple[list[str] | None, list[float] | None]] = [
    (["b", "a"], [2.0, 1.0]), ([], []), (None, None), (["c"], [4.0]), (["a", "b", "c"], [1, 2, 3]),
]  # fmt: skip


def column(values: list, kind: pa.DataType) -> pa.ChunkedArray:
    """In two chunks, as a table from several files has it."""
    halves = [values[:2], values[2:]]
    return pa.chunked_array([pa.array(half, pa.list_(kind)) for half in halves])


def lists_of(rows: list) -> Lists:
    texts, counts = zip(*rows, strict=True)
    return compressed(
        column(list(texts), pa.string()), column(list(counts), pa.float32()), TEXTS
    )  # fmt: skip


def plain(lists: Lists, row: int) -> list[tuple[str, float]]:
    ids, _, weights, _ = lists.cut(np.array([[row]]))
    return [(TEXTS[i], float(w)) for i, w in zip(ids, weights, strict=True)]


def expected(rows: list, row: int) -> list[tuple[str, float]]:
    return list(zip(rows[row][0] or [], rows[row][1] or [], strict=True))


def test_each_row_holds_its_list() -> None:
    lists = lists_of(ROWS)
    assert [plain(lists, r) for r in range(5)] == [expected(ROWS, r) for r in range(5)]


def test_a_cut_is_the_rows_one_after_another_and_minus_one_is_empty() -> None:
    asked = np.array([[4, -1, 0], [0, 1, 3]])
    ids, offsets, weights, length_BW = lists_of(ROWS).cut(asked)
    assert length_BW.tolist() == [[3, 0, 2], [2, 0, 1]]
    assert offsets.tolist() == [0, 3, 3, 5, 7, 7]
    assert [TEXTS[i] for i in ids] == ["a", "b", "c", "b", "a", "b", "a", "c"]
    assert weights.tolist() == [1, 2, 3, 2, 1, 2, 1, 4]


def test_nothing_can_be_cut() -> None:
    ids, offsets, weights, length_BW = lists_of(ROWS).cut(np.array([[-1, 1], [2, -1]]))
    assert (len(ids), len(weights), length_BW.sum(), offsets.tolist()) == (0, 0, 0, [0] * 4)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_merged_rows_hold_the_lists_of_every_part_in_order(order: tuple[int, ...]) -> None:
    nobody: list = [([], [])] * 5
    backwards = ROWS[::-1]
    rows = [(ROWS, backwards, nobody)[n] for n in order]
    both = merged([lists_of(each) for each in rows])
    for r in range(5):
        assert plain(both, r) == [pair for each in rows for pair in expected(each, r)]


def test_merging_leaves_the_parts_alone() -> None:
    one, other = lists_of(ROWS), lists_of(ROWS[::-1])
    merged([one, other])
    assert plain(one, 4) == expected(ROWS, 4)


def test_distinct_texts() -> None:
    assert distinct(column([row[0] for row in ROWS], pa.string())) == set(TEXTS)
    assert distinct(column([[], None, []], pa.string())) == set()
