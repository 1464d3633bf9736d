"""Features of habits, worked out by hand."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pytest
import torch

from encoders.habit_counts import (
    HALF_LIVES,
    NUM_PAIR_FEATURES,
    NUM_USER_FEATURES,
    HabitBatch,
    habit_counts,
)
from encoders.lists import Lists

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)

# Rows 0 … 4 are five weeks of one user, rows 5 and 6 two weeks of another: (subject, baskets).
WEEKS = [[(0, 1)], [], [(2, 1)], [], [(0, 2), (3, 1)], [], []]
FIRST, SECOND, UNKNOWN = [0, 1, 2, 3, 4], [-1, -1, -1, 5, 6], [-1] * 5


def lists_of(weeks: list[list[tuple[int, int]]]) -> Lists:
    length = np.array([len(week) for week in weeks])
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    flat = [pair for week in weeks for pair in week]
    ids = np.array([i for i, _ in flat], np.int64)
    return Lists(start, length, ids, np.array([w for _, w in flat], np.float32))


def counted(rows: list[list[int]], weeks: Any = WEEKS) -> HabitBatch:
    return habit_counts(lists_of(weeks), np.array(rows), VECTORS)


def features(times: list[tuple[float, float]]) -> list[float]:
    """Of occurrences (age in weeks, baskets), newest first."""
    decayed = [sum(n * 0.5 ** (age / half) for age, n in times) for half in HALF_LIVES]
    count = sum(n for _, n in times)
    last, first = times[0][0], times[-1][0]
    rhythm = (first - last) / max(count - 1, 1)
    return [
        *(log(1 + each) for each in decayed), log(1 + last), log(1 + first), log(1 + count),
        log(1 + last) - log(1 + rhythm), float(count > 1),
    ]  # fmt: skip


def test_pairs_of_a_user_by_hand() -> None:
    habits = counted([FIRST])
    assert habits.owner.tolist() == [0, 0, 0] and habits.offsets.tolist() == [0]
    assert torch.equal(habits.subjects_VE[habits.ids], torch.from_numpy(VECTORS[[0, 2, 3]]))
    expected = [features([(0, 2), (4, 1)]), features([(2, 1)]), features([(0, 1)])]
    torch.testing.assert_close(habits.pairs_nF, torch.tensor(expected))
    # Three baskets within four weeks: one every two weeks; just now, so not overdue.
    assert habits.pairs_nF[0, -2].item() == pytest.approx(-log(3))


def test_a_users_own_features_are_those_of_all_subjects_together() -> None:
    habits = counted([FIRST])
    together = features([(0, 2), (0, 1), (2, 1), (4, 1)])[:-2]
    torch.testing.assert_close(habits.users_BU, torch.tensor([[*together, log(1 + 5)]]))
    assert (habits.pairs_nF.shape[1], habits.users_BU.shape[1]) == (
        NUM_PAIR_FEATURES, NUM_USER_FEATURES)  # fmt: skip


def test_users_without_habits_have_no_pairs_and_bought_as_if_long_ago() -> None:
    habits = counted([UNKNOWN, FIRST, SECOND])
    assert habits.offsets.tolist() == [0, 0, 3] and habits.owner.tolist() == [1, 1, 1]
    for user, weeks in ((0, 0), (2, 2)):
        nothing = [0.0] * len(HALF_LIVES) + [log(53), 0.0, 0.0, log(1 + weeks)]
        torch.testing.assert_close(habits.users_BU[user], torch.tensor(nothing))
    alone = counted([FIRST])
    assert torch.equal(habits.pairs_nF, alone.pairs_nF)
    assert torch.equal(habits.users_BU[1], alone.users_BU[0])


def test_a_week_outside_the_span_is_not_counted() -> None:
    cut = counted([FIRST[1:]])
    torch.testing.assert_close(cut.pairs_nF[0], torch.tensor(features([(0, 2)])))
    assert cut.users_BU[0, -1].item() == pytest.approx(log(5))


@pytest.mark.parametrize("rows", [[UNKNOWN], [SECOND, UNKNOWN]])
def test_nobody_has_a_habit(rows: list[list[int]]) -> None:
    habits = counted(rows)
    assert habits.subjects_VE.shape == (0, 3) and habits.pairs_nF.shape == (0, NUM_PAIR_FEATURES)
    assert habits.users_BU.shape == (len(rows), NUM_USER_FEATURES)
    assert habits.offsets.tolist() == [0] * len(rows)
    assert habits.users_BU.isfinite().all()


def test_two_users_share_a_subjects_vector_and_nothing_else() -> None:
    weeks = [[(1, 3)], [(1, 1)]]
    habits = counted([[-1, 0], [-1, 1]], weeks)
    assert habits.ids.tolist() == [0, 0] and habits.owner.tolist() == [0, 1]
    assert habits.subjects_VE.tolist() == VECTORS[[1]].tolist()
    torch.testing.assert_close(
        habits.pairs_nF, torch.tensor([features([(0, 3)]), features([(0, 1)])])
    )


def test_to_moves_every_tensor() -> None:
    moved = counted([FIRST]).to("meta")
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}
