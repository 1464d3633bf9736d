"""Habits: what they say before training, against a slow sum, and what training can reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.batch import Collate
from encoders.habit_counts import HALF_LIVES, HabitBatch, habit_counts
from encoders.habits import HabitConfig, HabitEncoder
from encoders.history import History
from encoders.lists import Lists

WIDTH = 16
SUBJECTS = 6
TINY = HabitConfig(width=WIDTH, ways=3, hidden=5, rank=2, dropout=0.0, windows=4)


def some_habits(num_users: int = 8, weeks: int = 6, seed: int = 0) -> HabitBatch:
    """Random habits of a few users; user 0 has none. Text vectors are orthonormal, times √E."""
    rng = np.random.default_rng(seed)
    held = [
        [] if row < weeks else np.flatnonzero(rng.random(SUBJECTS) < 0.3).tolist()
        for row in range(num_users * weeks)
    ]
    length = np.array([len(each) for each in held])
    start = np.concatenate([[0], np.cumsum(length)[:-1]])
    ids = np.array([i for each in held for i in each], np.int64)
    lists = Lists(start, length, ids, rng.integers(1, 5, len(ids)).astype(np.float32))
    rows_BW = np.arange(num_users * weeks).reshape(num_users, weeks)
    return habit_counts(lists, rows_BW, np.eye(SUBJECTS, WIDTH, dtype=np.float32) * WIDTH**0.5)


def no_profile(habits: HabitBatch) -> Tensor:
    return torch.zeros(len(habits.users_BU), 0)


def fitted(habits: HabitBatch, config: HabitConfig = TINY) -> HabitEncoder:
    torch.manual_seed(1)
    encoder = HabitEncoder(config).eval()
    encoder.fit(habits)
    return encoder


def vectors(encoder: HabitEncoder, habits: HabitBatch) -> Tensor:
    return encoder(habits, habits.subjects_VE, no_profile(habits), no_profile(habits).long())


# --- at the start


def test_at_the_start_a_sentence_orders_users_as_their_decayed_counts_do() -> None:
    """Users with 1, 2, 4, … baskets of a subject, each in the same weeks, beside other habits."""
    rng = np.random.default_rng(3)
    baskets = rng.permutation([1, 2, 4, 8, 16, 32])
    target, noise = 0, 3
    ids = np.array([[target, noise], [target, noise]] * 6).reshape(-1)
    weights = np.stack([baskets, rng.integers(1, 30, 6)], 1).repeat(2, 0).reshape(-1)
    lists = Lists(np.arange(0, 24, 2), np.full(12, 2), ids, weights.astype(np.float32))
    vectors_VE = np.eye(SUBJECTS, WIDTH, dtype=np.float32) * WIDTH**0.5
    habits = habit_counts(lists, np.arange(12).reshape(6, 2), vectors_VE)
    user_BE = vectors(fitted(habits), habits)
    assert user_BE[:, target].argsort().tolist() == baskets.argsort().tolist()
    others = [i for i in range(SUBJECTS) if i not in (target, noise)]
    torch.testing.assert_close(user_BE[:, others], torch.zeros(6, len(others)))


def test_at_the_start_the_score_is_a_sum_of_standardised_decayed_counts() -> None:
    habits = some_habits()
    encoder = fitted(habits)
    torch.nn.init.zeros_(encoder.network[-1].weight)  # which begins as a little noise
    user_BE = vectors(encoder, habits)
    pairs_nF = habits.pairs_nF.double()
    standard = (pairs_nF - pairs_nF.mean(0)) / pairs_nF.std(0)
    weights = torch.tensor([0.3, 0.6, 1.0, 0.6], dtype=torch.float64)
    score_n = 5 + standard[:, : len(HALF_LIVES)] @ weights
    expected = torch.zeros(len(user_BE), WIDTH)
    subject_n = habits.subjects_VE[habits.ids].argmax(1)
    expected[habits.owner, subject_n] = score_n.float()
    torch.testing.assert_close(user_BE, expected, atol=1e-4, rtol=1e-4)
    assert score_n.min() > 0  # any habit weighs more than none


def test_users_without_habits_start_at_zero() -> None:
    habits = some_habits()
    assert vectors(fitted(habits), habits)[0].abs().max() == 0
    nobody = replace(
        habits, subjects_VE=habits.subjects_VE[:0], ids=habits.ids[:0], owner=habits.owner[:0],
        pairs_nF=habits.pairs_nF[:0], offsets=torch.zeros_like(habits.offsets),
    )  # fmt: skip
    assert vectors(fitted(habits), nobody).abs().max() == 0


# --- in general


def test_vectors_are_those_of_the_slow_sum(jolt: Callable) -> None:
    habits = some_habits()
    encoder = fitted(habits)
    jolt(encoder)
    x_VE = habits.subjects_VE / WIDTH**0.5
    overall_BU = encoder.user_scale(habits.users_BU)
    rows = []
    with torch.no_grad():
        for user in range(len(habits.users_BU)):
            vector = encoder.overall(overall_BU[user])
            for n in torch.where(habits.owner == user)[0]:
                x, pair = x_VE[habits.ids[n]], encoder.pair_scale(habits.pairs_nF[n])
                hidden = encoder.of_pair(pair) + encoder.of_user(overall_BU[user])
                phi = encoder.network(hidden + encoder.of_text(x)) + encoder.direct(pair)
                for k in range(TINY.ways):
                    bent = x @ encoder.into_KEr[k] @ encoder.out_KrE[k]
                    vector = vector + phi[k] * (encoder.scale_KE[k] * x + bent)
            rows.append(vector)
        torch.testing.assert_close(
            vectors(encoder, habits), torch.stack(rows), atol=1e-4, rtol=1e-4
        )
    assert torch.stack(rows)[0].abs().max() > 0  # after training, no habits say something too


def test_dropout_forgets_whole_habits_in_training_only() -> None:
    habits = some_habits()
    encoder = fitted(habits, replace(TINY, dropout=0.25))
    still = vectors(encoder, habits)
    assert torch.equal(vectors(encoder, habits), still)
    encoder.train()
    had, forgotten = still.abs() > 1e-3, 0
    for _ in range(40):
        moved = vectors(encoder, habits)
        kept = moved.abs() > 1e-3
        torch.testing.assert_close(moved[kept], still[kept] / 0.75, atol=1e-4, rtol=1e-4)
        forgotten += int((had & ~kept).sum())
    assert forgotten / (40 * int(had.sum())) == pytest.approx(0.25, abs=0.05)


def test_gradients_reach_every_parameter(jolt: Callable) -> None:
    habits = some_habits()
    encoder = fitted(habits, replace(TINY, profile_width=2, profile_sizes=(3, 4)))
    jolt(encoder)
    profile_BP = torch.randn(len(habits.users_BU), 2)
    codes_BC = torch.randint(0, 3, (len(habits.users_BU), 2))
    user_BE = encoder(habits, habits.subjects_VE, profile_BP, codes_BC)
    (user_BE * torch.randn(user_BE.shape)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-6, name


def test_the_profile_is_read_after_training(jolt: Callable) -> None:
    habits = some_habits()
    encoder = fitted(habits, replace(TINY, profile_width=2))
    shown, other = torch.randn(2, len(habits.users_BU), 2)
    codes_BC = no_profile(habits).long()
    jolt(encoder)
    moved = [encoder(habits, habits.subjects_VE, each, codes_BC) for each in (shown, other)]
    assert (moved[0] - moved[1]).abs().amax(1).min() > 1e-3


def test_each_category_of_the_profile_adds_its_own_vector(jolt: Callable) -> None:
    habits = some_habits()
    encoder = fitted(habits, replace(TINY, profile_sizes=(3, 4)))

    def of(*each: int) -> torch.Tensor:
        codes_BC = torch.tensor(each).expand(len(habits.users_BU), 2)
        return encoder(habits, habits.subjects_VE, no_profile(habits), codes_BC)

    assert torch.equal(of(2, 3), of(0, 0))  # nothing is learnt yet
    jolt(encoder)
    both, other = of(2, 3), of(2, 1)
    moved = encoder.of_values.weight[3 + 3] - encoder.of_values.weight[3 + 1]
    torch.testing.assert_close(both - other, moved.expand_as(both), atol=1e-5, rtol=1e-4)
    assert moved.abs().max() > 1e-3


# --- from weekly rows


def sentence_vectors(texts: Any) -> np.ndarray:
    rows = [np.random.default_rng(list(t.encode())).standard_normal(WIDTH) for t in texts]
    return np.stack(rows).astype(np.float32)


def collate_of(world: Any, vector_of: Callable, rows: Any = None) -> Collate:
    history = History(
        world.table("behaviour", rows), None, world.table("search", rows), vector_of,
        world.table("habits", rows), sentence_vectors,
    )  # fmt: skip
    return Collate(history, windows=4, habit_windows=3)


def test_each_kind_of_habit_is_read_through_its_own_sentence(
    world: Any, vector_of: Callable
) -> None:
    collate = collate_of(world, vector_of)
    history = collate.history
    rows_B = np.arange(len(history.user_ids))
    habits = collate.habits(rows_B)
    assert habits is not None
    by_key = {(row["user_id"], row["event_timestamp"]): row for row in world.rows}
    times = world.table("behaviour").sort_by(
        [("user_id", "ascending"), ("event_timestamp", "ascending")]
    )
    keys = list(
        zip(times["user_id"].to_pylist(), times["event_timestamp"].to_pylist(), strict=True)
    )
    wordings = {
        "bills": ("bill_counts", "will buy {} in the next four weeks"),
        "clicks": ("click_counts", "will click on {} in the next four weeks"),
        "searches": ("search_counts", "will search for {} in the next four weeks"),
    }
    assert {kind for kind, _ in history.habit_names} == {"purchase", "click", "search"}
    for b, (user, end) in enumerate(keys):
        expected: dict[str, float] = {}
        for (other, at), row in by_key.items():
            if other == user and 0 <= (end - at).days < 21:
                for column, (counts, wording) in wordings.items():
                    for text, n in zip(row[column], row[counts], strict=True):
                        said = wording.format(text)
                        expected[said] = expected.get(said, 0) + n
        mine = habits.owner == b
        got = {
            tuple(v.tolist()): c
            for v, c in zip(
                habits.subjects_VE[habits.ids[mine]], habits.pairs_nF[mine, -3].exp() - 1,
                strict=True,
            )
        }  # fmt: skip
        known = {tuple(sentence_vectors([said])[0].tolist()): n for said, n in expected.items()}
        assert got == {v: pytest.approx(n, rel=1e-4) for v, n in known.items()}


def test_rows_after_the_cutoff_do_not_change_habits(world: Any, vector_of: Callable) -> None:
    cut = sorted({row["event_timestamp"] for row in world.rows})[3]
    past = [row for row in world.rows if row["event_timestamp"] <= cut]
    users = sorted({row["user_id"] for row in past})
    at = [int(cut.timestamp()) * 1_000_000] * len(users)
    batches = []
    for rows in (past, None):
        collate = collate_of(world, vector_of, rows)
        batches.append(collate.habits(collate.history.rows(users, at)))
    before, after = batches
    assert len(before.ids)
    for name in ("offsets", "owner", "pairs_nF", "users_BU"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert torch.equal(before.subjects_VE[before.ids], after.subjects_VE[after.ids])


def test_without_habits_there_is_no_batch_of_them(world: Any, vector_of: Callable) -> None:
    assert Collate(world.history(), windows=4).habits(np.array([0])) is None
    bare = History(world.table("behaviour"), None, None, vector_of)
    assert Collate(bare, windows=4, habit_windows=3)(np.array([0])).habits is None
