"""What ShopperBERT is pre-trained on: whose logs, which stretch of them, and how they are varied.

As in the paper, users who buy too rarely and those who buy most are left out (One4all 4.1.1), and
30 % of a batch are augmented (Algorithm 1). They all get a vector later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from encoders.purchase_masking import augmented
from encoders.purchases import PurchaseBatch, PurchaseCollate, PurchaseHistory
from encoders.shopper_bert import ShopperBertConfig
from feature_repo.errors import InputError

_MONTH_US = 365.25 / 12 * 86_400_000_000


def batches(
    history: PurchaseHistory, config: ShopperBertConfig, seed: int
) -> Callable[[int, int, int], PurchaseBatch]:
    """``batch(step, rank, size)``: one random stretch each of ``size`` users, some augmented."""
    collate = PurchaseCollate(history, config.vocabularies)
    users = eligible(history, config)

    def batch(step: int, rank: int, size: int) -> PurchaseBatch:
        rng = np.random.default_rng([seed, step, rank])
        drawn = rng.choice(users, size, replace=len(users) < size)
        stretches = [stretch(history, user, config, rng) for user in drawn]
        varied = rng.random(size) < config.augment_share
        stretches = [
            augmented(each, rng, crop=config.crop_share) if vary else each
            for each, vary in zip(stretches, varied, strict=True)
        ]
        return collate(stretches, range(size), size)

    return batch


def eligible(history: PurchaseHistory, config: ShopperBertConfig) -> np.ndarray:
    """Places of the users who are trained on.

    Raises:
        InputError: when nobody is left.
    """
    if not len(history.times_n):
        return np.zeros(0, np.int64)
    months = max(1.0, float(np.ptp(history.times_n)) / _MONTH_US)
    enough = history.length_U >= config.least_per_month * months
    most = np.quantile(history.length_U, 1 - config.top_share)
    users = np.flatnonzero(enough & (history.length_U <= most))
    if not len(users):
        raise InputError(
            f"least_per_month, top_share: {config.least_per_month}, {config.top_share} leave none "
            f"of {len(history.user_ids)} users to train on; lower both"
        )
    return users


def stretch(
    history: PurchaseHistory, user: int, config: ShopperBertConfig, rng: np.random.Generator
) -> np.ndarray:
    """A random run of at most ``length`` tokens out of those that make the user's vector."""
    end = int(history.start_U[user] + history.length_U[user])
    begin = max(int(history.start_U[user]), end - config.length * config.stretches)
    last = int(rng.integers(min(begin + config.length, end), end + 1))
    return np.arange(max(begin, last - config.length), last)
