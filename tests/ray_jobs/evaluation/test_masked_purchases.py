"""The measure of the pretext tasks against slow references."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from encoders.purchases import FIELDS, PurchaseCollate, PurchaseHistory, fit_vocabularies
from encoders.shopper_bert import ShopperBert, ShopperBertConfig
from ray_jobs.evaluation.masked_purchases import markdown, nearest_shown, scores, seen_counts

HOUR = 3_600_000_000
TEXTS = ("milk", "soap", "tea")


@pytest.fixture
def collate() -> PurchaseCollate:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        baskets = np.repeat(np.sort(rng.integers(0, 24 * 90, 8)), 4) * HOUR
        named = rng.choice(TEXTS, 32, p=[0.6, 0.3, 0.1])
        rows.append({
            "user_id": f"u{user}", "bought_at": baskets.tolist(),
            "products": [f'{{"text":"{t}","categories":["{t.upper()}"]}}' for t in named],
        })  # fmt: skip
    history = PurchaseHistory(
        pa.Table.from_pylist(rows), lambda texts: np.ones((len(texts), 4), np.float32)
    )
    return PurchaseCollate(history, fit_vocabularies(history))


@pytest.fixture
def model(collate: PurchaseCollate) -> ShopperBert:
    torch.manual_seed(0)
    known = fit_vocabularies(collate.history)
    return ShopperBert(
        ShopperBertConfig(known, text_width=4, dim=8, heads=2, layers=1, length=32)
    ).eval()


def test_the_nearest_shown_token_is_that_of_the_slow_reference() -> None:
    rng = np.random.default_rng(1)
    filled = np.arange(9) < rng.integers(1, 10, (30, 1))
    hidden = filled & (rng.random((30, 9)) < 0.5)
    found = nearest_shown(filled, hidden)
    for row, place in np.argwhere(hidden):
        shown = [k for k in range(9) if filled[row, k] and not hidden[row, k]]
        best = min(shown, key=lambda k: (abs(k - place), k), default=-1)
        assert found[row, place] == best


def test_copying_knows_the_date_until_whole_baskets_are_hidden(
    collate: PurchaseCollate, model: ShopperBert
) -> None:
    counts = seen_counts(collate, model.config.vocabularies)
    users = collate.history.user_ids
    single, whole = (
        {row.task: row for row in scores(model, collate, users, whole_visits=w, counts=counts)}
        for w in (False, True)
    )
    assert {*single} == {*FIELDS}
    assert single["day"].copying_right == pytest.approx(0.75, abs=0.06)  # three of a basket's four
    assert whole["day"].copying_right < 0.3 and whole["hour"].copying_right < 0.3
    assert single["category_1"].copying_right == pytest.approx(0.46, abs=0.12)
    for row in single.values():
        assert 0.08 < row.tokens / (40 * 32) < 0.22
        if row.values == 1:
            assert row.model == 0 and row.prior == pytest.approx(0) and row.copying < 1e-6
    assert "category_4" in markdown({"single": [*single.values()]})


def test_the_prior_is_the_entropy_of_what_training_saw(
    collate: PurchaseCollate, model: ShopperBert
) -> None:
    counts = seen_counts(collate, model.config.vocabularies)
    assert counts["category_1"].sum() == 40 * 32
    share = counts["category_1"] / counts["category_1"].sum()
    row = scores(model, collate, collate.history.user_ids, whole_visits=False, counts=counts)[0]
    entropy = -sum(p * math.log(p) for p in share)
    assert row.task == "category_1" and row.prior == pytest.approx(entropy, abs=0.15)
    assert row.prior_right == pytest.approx(share.max(), abs=0.12)
    assert row.copying <= row.prior + 0.02, "mixed with the prior it can hardly be worse"
