"""ShopperBERT against a slow reference, its two variants, and users without purchases."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from encoders import checkpoint
from encoders.purchase_masking import MASK, mask_purchases
from encoders.purchases import CATEGORIES, DATES, FIELDS, PurchaseBatch, example_batch
from encoders.shopper_bert import ShopperBert, ShopperBertConfig

WIDTH = 8
VALUES = {
    "category_1": ["", "food"], "category_2": ["", "dairy"], "category_3": [""],
    "category_4": [""], "year": [1970], "month": [1], "day": [1, 4, 5, 10],
    "weekday": [0, 3, 5, 6], "hour": [0],
}  # fmt: skip
TASKS = ("category_1", "category_2", "day", "weekday")


def build(**more: Any) -> ShopperBert:
    torch.manual_seed(0)
    config = ShopperBertConfig(
        vocabularies=VALUES, text_width=WIDTH, dim=12, heads=2, length=5, **more
    )
    return ShopperBert(config).eval()


@pytest.fixture
def batch() -> PurchaseBatch:
    return example_batch(width=WIDTH)


def slow_token(model: ShopperBert, batch: PurchaseBatch, row: int, place: int) -> torch.Tensor:
    """Eq. 1 and the average of product, five dates and position, one token alone."""
    product = batch.product_RT[row, place]
    parts = [
        table.weight[batch.categories_VK[product, k]] for k, table in enumerate(model.categories)
    ]
    parts.append(model.text(batch.texts_VE[product] * WIDTH**0.5))
    averaged = [model.product(torch.cat(parts))]
    averaged += [
        table.weight[batch.dates_RTD[row, place, d]] for d, table in enumerate(model.dates)
    ]
    last = int(batch.filled_RT[row].sum()) - 1
    averaged.append(model.position.weight[last - place])
    return model.norm(torch.stack(averaged).mean(0))


def test_tokens_are_averages_of_product_date_and_position(batch: PurchaseBatch) -> None:
    model = build()
    fast = model.tokens(batch)
    for row, place in batch.filled_RT.nonzero().tolist():
        torch.testing.assert_close(fast[row, place], slow_token(model, batch, row, place))


def test_positions_start_as_neighbours_that_are_alike() -> None:
    torch.manual_seed(0)
    config = ShopperBertConfig(vocabularies=VALUES, text_width=WIDTH, dim=64, heads=2, length=40)
    places = ShopperBert(config).position.weight
    alike = functional.cosine_similarity(places[:, None], places[None], dim=-1)
    assert (alike.diagonal(1) > alike.diagonal(4)[:, None]).all()
    torch.testing.assert_close(places.square().mean(), torch.tensor(1.0), atol=0.05, rtol=0)


@pytest.mark.parametrize("variant", ["mp", "cls"])
def test_users_are_read_one_by_one(variant: Any, batch: PurchaseBatch) -> None:
    """The vector is the mean of the last states (MP) or the CLS state; padding changes nothing."""
    model = build(variant=variant)
    vectors = model(batch)
    for row in range(2):
        places = range(int(batch.filled_RT[row].sum()))
        x_1TH = torch.stack([slow_token(model, batch, row, place) for place in places])[None]
        if variant == "cls":
            x_1TH = torch.cat([model.cls_H[None, None], x_1TH], 1)
        h_1TH = model.transformer(x_1TH)
        expected = h_1TH[0, 0] if variant == "cls" else h_1TH[0].mean(0)
        torch.testing.assert_close(vectors[row], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", ["mp", "cls"])
def test_the_loss_is_the_mean_over_tasks_of_the_slow_reference(
    variant: Any, batch: PurchaseBatch
) -> None:
    model = build(variant=variant, mask_share=0.6)
    torch.manual_seed(3)
    total, parts = model.loss(batch)
    torch.manual_seed(3)
    masked = mask_purchases(batch.filled_RT, batch.visit_RT, share=0.6)
    assert masked.chosen_RT.any()
    h_RTH, cls_RH = model.states(batch, masked)
    losses: dict[str, list[torch.Tensor]] = {name: [] for name in TASKS}
    for row, place in masked.chosen_RT.nonzero().tolist():
        state = h_RTH[row, place] if variant == "mp" else cls_RH[row]
        for name in TASKS:
            target = batch.codes_RTF[row, place, FIELDS.index(name)] - 1
            losses[name].append(functional.cross_entropy(model.heads[name](state), target))
    means = {name: torch.stack(each).mean() for name, each in losses.items()}
    for name in TASKS:
        torch.testing.assert_close(parts[name], means[name], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(total, torch.stack([*means.values()]).mean())
    assert {*parts} == {*FIELDS}
    assert [parts[name].item() for name in FIELDS if name not in TASKS] == [0.0] * 5


def test_a_masked_token_shows_nothing_of_itself(batch: PurchaseBatch) -> None:
    model = build()
    torch.manual_seed(0)
    masked = mask_purchases(batch.filled_RT, batch.visit_RT, share=0.5, all_masked=True)
    hidden = masked.source_RT == MASK
    assert hidden.any()
    other = replace(
        batch,
        product_RT=torch.where(hidden, 1 - batch.product_RT, batch.product_RT),
        dates_RTD=torch.where(hidden.unsqueeze(-1), 1, batch.dates_RTD),
    )
    for ours, theirs in zip(
        model.predict(batch, masked).values(), model.predict(other, masked).values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_cls_says_the_same_of_all_of_a_users_masks(batch: PurchaseBatch) -> None:
    masked = mask_purchases(batch.filled_RT, batch.visit_RT, share=1.0, all_masked=True)
    of_cls = build(variant="cls").predict(batch, masked)["day"]
    torch.testing.assert_close(of_cls[:3], of_cls[:1].expand(3, -1))
    of_mp = build(variant="mp").predict(batch, masked)["day"]
    assert not torch.allclose(of_mp[0], of_mp[1])


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "mp"},
        {"variant": "cls"},
        {"pooling": "counts"},
        {"pooling": "words", "words": 3},
    ],
    ids=str,
)
def test_a_user_without_purchases_is_cold(settings: dict[str, Any], batch: PurchaseBatch) -> None:
    model = build(**settings)
    more = replace(batch, user_U=torch.arange(3), owner_R=torch.tensor([0, 2]))
    vectors = model(more)
    assert (vectors[1] == 0).all() and vectors[0].any() and vectors[2].any()
    torch.testing.assert_close(vectors[[0, 2]], model(batch))
    none = replace(
        more, product_RT=batch.product_RT[:0], dates_RTD=batch.dates_RTD[:0],
        visit_RT=batch.visit_RT[:0], filled_RT=batch.filled_RT[:0], owner_R=batch.owner_R[:0],
    )  # fmt: skip
    assert model(none).shape == (3, model.width) and not model(none).any()


def test_stretches_of_one_user_are_averaged_by_token(batch: PurchaseBatch) -> None:
    model = build()
    h_RTH, _ = model.states(batch)
    together = model(replace(batch, user_U=torch.arange(1), owner_R=torch.zeros(2).long()))
    torch.testing.assert_close(together[0], h_RTH[batch.filled_RT].mean(0))


def test_soft_counts_add_up_what_means_divide_away(batch: PurchaseBatch) -> None:
    model = build(pooling="counts")
    h_RTH, _ = model.states(batch)
    for owners in (torch.arange(2), torch.zeros(2).long()):
        users = int(owners.max()) + 1
        vectors = model(replace(batch, user_U=torch.arange(users), owner_R=owners))
        assert vectors.shape == (users, 24) == (users, model.width)
        for user in range(users):
            own = [h_RTH[row, k] for row, k in batch.filled_RT.nonzero() if owners[row] == user]
            up = sum(torch.where(h > 0, h, 0 * h) for h in own)
            down = sum(torch.where(h < 0, -h, 0 * h) for h in own)
            torch.testing.assert_close(vectors[user], (torch.cat([up, down]) + 1).log())


def test_words_count_kinds_of_products_beside_the_soft_counts(batch: PurchaseBatch) -> None:
    model, plain = build(pooling="words", words=3), build(pooling="counts")
    together = replace(batch, user_U=torch.arange(1), owner_R=torch.zeros(2).long())
    model.fit_words(batch, batch)
    for each in (batch, together):
        soft, words = model(each).split([24, 3], -1)
        torch.testing.assert_close(soft, plain(each))
        counted = (words / model.words_scale).exp() - 1
        bought = each.product_RT[each.filled_RT]  # of two products, each a word of its own
        torch.testing.assert_close(
            counted.sum(0).sort(descending=True).values,
            functional.pad(bought.bincount().sort(descending=True).values.float(), (0, 1)),
        )
    soft, words = model(batch).split([24, 3], -1)
    torch.testing.assert_close(words.var(0).sum(), 2 * soft.var(0).sum())


def test_unknown_values_add_nothing_and_are_not_predicted(batch: PurchaseBatch) -> None:
    model = build(mask_share=1.0)
    for table in [*model.categories, *model.dates]:
        assert not table.weight[0].any()
    strange = replace(batch, categories_VK=torch.zeros_like(batch.categories_VK))
    total, parts = model.loss(strange)
    assert parts["category_1"] == parts["category_2"] == 0 and parts["day"] > 0
    total.backward()
    assert not model.categories[0].weight.grad[0].any()


def test_it_learns_what_is_hidden(batch: PurchaseBatch) -> None:
    model = build(mask_share=0.5, dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    seen = []
    for step in range(60):
        torch.manual_seed(step % 4)
        total, _ = model.loss(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen.append(total.item())
    assert np.mean(seen[-8:]) < 0.3 * np.mean(seen[:4])


@pytest.mark.parametrize(
    "settings", [{"variant": "cls"}, {"pooling": "words", "words": 3}], ids=str
)
def test_a_checkpoint_brings_the_same_vectors_back(
    settings: dict[str, Any], batch: PurchaseBatch, tmp_path: Path
) -> None:
    model = build(**settings)
    if "words" in settings:
        model.fit_words(batch, batch)
    info = checkpoint.CheckpointInfo(
        "shopper_bert", asdict(model.config), trained_as_of="2017-09-11", horizon_days=28,
        feature_hash="0", seed=0, version="0", metrics={},
    )  # fmt: skip
    checkpoint.save(tmp_path / "saved", model, info)
    again, _ = checkpoint.load(tmp_path / "saved", expect="shopper_bert")
    assert torch.equal(again(batch), model(batch))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"variant": "max"}, "variant: expected"), ({"pooling": "sum"}, "pooling: expected"),
     ({"pooling": "counts", "variant": "cls"}, "pooling: .*'counts' with 'cls'"),
     ({"pooling": "words", "words": 0}, "words: expected at least 1"),
     ({"dim": 10, "heads": 4}, "multiple of heads"),
     ({"stretches": 0}, "at least 1")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShopperBertConfig(**wrong)


def test_the_nine_tasks() -> None:
    assert len(FIELDS) == 9 and len(CATEGORIES) == 4 and len(DATES) == 5
