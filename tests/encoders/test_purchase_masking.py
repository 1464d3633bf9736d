"""Masking ratios, and Algorithm 1 line by line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders.purchase_masking import MASK, augmented, mask_purchases

R, T = 200, 60


@pytest.fixture
def filled_RT() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.arange(T) < torch.randint(1, T + 1, (R, 1))


def test_of_fifteen_percent_eighty_are_masked_ten_replaced_ten_kept(
    filled_RT: torch.Tensor,
) -> None:
    visit_RT = torch.arange(R * T).view(R, T)
    masked = mask_purchases(filled_RT, visit_RT, share=0.15)
    chosen = masked.chosen_RT
    assert not (chosen & ~filled_RT).any()
    assert float(chosen.sum() / filled_RT.sum()) == pytest.approx(0.15, abs=0.01)
    itself = torch.arange(R * T).view(R, T)
    assert (masked.source_RT == itself)[~chosen].all(), "what is not chosen stays"
    shown = masked.source_RT[chosen]
    shares = [(shown == MASK), (shown != MASK) & (shown != itself[chosen]), shown == itself[chosen]]
    for share, expected in zip(shares, (0.8, 0.1, 0.1), strict=True):
        assert float(share.float().mean()) == pytest.approx(expected, abs=0.03)
    replaced = shown[(shown != MASK)]
    assert filled_RT.flatten()[replaced].all(), "a random token is a real one"
    rows = replaced // T
    assert len(rows.unique()) > 30, "from anywhere in the batch"


def test_whole_visits_are_hidden_together(filled_RT: torch.Tensor) -> None:
    visit_RT = torch.arange(R * T).view(R, T) // 4
    masked = mask_purchases(filled_RT, visit_RT, share=0.15, whole_visits=True)
    for visit in visit_RT.unique():
        here = (visit_RT == visit) & filled_RT
        assert masked.chosen_RT[here].float().mean() in (0.0, 1.0) or not here.any()
    share = float(masked.chosen_RT.sum() / filled_RT.sum())
    assert share == pytest.approx(0.15, abs=0.02)


def test_all_masked_leaves_nothing_to_copy(filled_RT: torch.Tensor) -> None:
    masked = mask_purchases(filled_RT, filled_RT.long(), share=0.3, all_masked=True)
    assert (masked.source_RT[masked.chosen_RT] == MASK).all() and masked.chosen_RT.any()


def test_an_empty_batch_hides_nothing() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    masked = mask_purchases(nothing, nothing.long(), share=0.5)
    assert not masked.chosen_RT.any() and (masked.source_RT >= 0).all()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 350])
def test_cropping_keeps_a_run_of_at_least_thirty_percent(size: int) -> None:
    rng = np.random.default_rng(size)
    log, lengths, starts = np.arange(100, 100 + size), set(), set()
    for _ in range(400):
        out = augmented(log, rng, crop=1.0)
        assert (np.diff(out) == 1).all() and len(out) >= max(1, 0.3 * size)
        lengths.add(len(out))
        starts.add(int(out[0]) - 100)
    assert max(starts) <= 0.7 * size + 1e-9
    if size >= 7:
        assert min(lengths) <= 0.45 * size and max(lengths) >= 0.9 * size
        assert min(starts) <= 0.02 * size and max(starts) >= 0.68 * size - 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 350])
def test_shuffling_touches_one_run_of_thirty_percent(size: int) -> None:
    rng = np.random.default_rng(size)
    log, moved_most = np.arange(size), 0
    for _ in range(200):
        out = augmented(log, rng, crop=0.0)
        assert sorted(out) == list(range(size)), "nothing lost, nothing added"
        moved = np.flatnonzero(out != log)
        if len(moved):
            assert moved[-1] - moved[0] + 1 <= 0.3 * size
            moved_most = max(moved_most, len(moved))
    assert moved_most >= (0.25 * size if size >= 10 else 0)
    assert log.tolist() == list(range(size)), "the log itself stays"


def test_crop_and_shuffle_are_drawn_one_to_one() -> None:
    rng = np.random.default_rng(0)
    log = np.arange(100)
    cropped = [len(augmented(log, rng, crop=0.5)) < 100 for _ in range(2_000)]
    assert np.mean(cropped) == pytest.approx(0.5, abs=0.05)
    assert len(augmented(np.zeros(0, np.int64), rng, crop=0.5)) == 0
