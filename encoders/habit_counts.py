"""How recent and how frequent each habit of a user is, counted from weekly rows.

Shapes: B users, W weeks (oldest first), n pairs of user and subject, F features of a pair,
U features of a user, V distinct subjects in the batch, E width of a sentence vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.lists import Lists

HALF_LIVES = (1.5, 4.0, 12.0, 40.0)
"""Weeks after which an occurrence counts half, one feature each."""

NUM_PAIR_FEATURES = len(HALF_LIVES) + 5
NUM_USER_FEATURES = len(HALF_LIVES) + 4


@dataclass(frozen=True)
class HabitBatch:
    """The habits of B users: user b has the pairs ``offsets[b]`` to ``offsets[b + 1]``."""

    subjects_VE: Tensor  # sentence vectors of the subjects
    ids: Tensor  # int64 [n], rows of subjects_VE
    offsets: Tensor  # int64 [B]
    owner: Tensor  # int64 [n], the user of each pair
    pairs_nF: Tensor
    users_BU: Tensor

    def to(self, device: torch.device | str) -> HabitBatch:
        """The same batch on another device."""
        return HabitBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def habit_counts(lists: Lists, rows_BW: np.ndarray, vectors_VE: np.ndarray) -> HabitBatch:
    """Count the habits of users whose weekly rows are ``rows_BW`` (-1: not known yet).

    A pair's features are its count halved every :data:`HALF_LIVES` weeks, weeks since the last
    and the first time, its plain count, how overdue it is against its own rhythm, and whether it
    is more than a single occurrence. A user's are the same over all subjects.
    """
    B, W = rows_BW.shape
    ids, _, weights, length_BW = lists.cut(rows_BW)
    cell = np.repeat(np.arange(B * W), length_BW.reshape(-1))
    user, age = cell // W, (W - 1 - cell % W).astype(np.float64)
    num = max(len(vectors_VE), 1)
    keys, pair = np.unique(user * num + ids, return_inverse=True)
    owner, used = keys // num, keys % num
    subjects, position = np.unique(used, return_inverse=True)
    known_B = (rows_BW >= 0).sum(1)
    pairs_nF = _features(pair, weights, age, len(keys))
    totals_BF = _features(user, weights, age, B)[:, :-2]
    users_BU = np.concatenate([totals_BF, np.log1p(known_B)[:, None]], 1)
    return HabitBatch(
        subjects_VE=torch.from_numpy(vectors_VE[subjects]),
        ids=torch.from_numpy(position),
        offsets=torch.from_numpy(np.searchsorted(owner, np.arange(B))),
        owner=torch.from_numpy(owner),
        pairs_nF=torch.from_numpy(pairs_nF.astype(np.float32)),
        users_BU=torch.from_numpy(users_BU.astype(np.float32)),
    )


def _features(group: np.ndarray, weights: np.ndarray, age: np.ndarray, num: int) -> np.ndarray:
    """Recency and frequency per group of occurrences, [num, NUM_PAIR_FEATURES]."""
    counts = np.bincount(group, weights, num)
    decayed = [np.bincount(group, weights * 0.5 ** (age / h), num) for h in HALF_LIVES]
    last, first = np.full(num, np.inf), np.zeros(num)
    np.minimum.at(last, group, age)
    np.maximum.at(first, group, age)
    last = np.where(np.isinf(last), first + 52.0, last)  # never: as if long ago
    rhythm = (first - np.minimum(last, first)) / np.maximum(counts - 1, 1)  # weeks between times
    columns = [
        *(np.log1p(each) for each in decayed), np.log1p(last), np.log1p(first), np.log1p(counts),
        np.log1p(last) - np.log1p(rhythm), counts > 1,
    ]  # fmt: skip
    return np.stack(columns, 1)
