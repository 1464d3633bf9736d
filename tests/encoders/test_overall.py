"""Demands about overall behaviour, written by people who knew neither phrases nor code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encoders.catalogue import Catalogue, Subject
from encoders.grounding import CatalogueRewriter
from encoders.outcome_phrases import PHRASES
from encoders.text import LineEncoder
from feature_repo.schema import OUTCOME_NAMES
from ray_jobs.protocol import CATEGORIES

DEMANDS = Path(__file__).parents[1] / "demands"
WRITTEN = json.loads((DEMANDS / "overall.json").read_text())
MARKETERS = json.loads((DEMANDS / "overall_marketers.json").read_text())
SAID = {phrase for each in PHRASES.values() for phrase in each}
ITEMS = Catalogue.of([Subject("purchase", name, 2, "GROCERY", 9) for name in CATEGORIES])


@pytest.fixture(scope="module")
def lines() -> LineEncoder:
    return LineEncoder()


def meant(rewriter: CatalogueRewriter, catalogue: Catalogue, demand: str) -> str:
    """Name of the subject with the largest share; "" for a demand that is left alone."""
    named = {s.sentence(horizon_days=28): s.name for s in catalogue.subjects}
    best, _ = max(rewriter.read(demand).sentences, key=lambda each: each[1])
    return named.get(best, "")


@pytest.fixture(scope="module")
def receipts(receipts_catalogue: Catalogue) -> Catalogue:
    return receipts_catalogue.with_outcomes(dict.fromkeys(OUTCOME_NAMES, 9))


@pytest.fixture(scope="module")
def rewriter(receipts: Catalogue, lines: LineEncoder) -> CatalogueRewriter:
    return CatalogueRewriter(receipts, lines, horizon_days=28)


@pytest.mark.parametrize(
    "asked",
    [
        {name: each[0::2] for name, each in WRITTEN.items()},
        {name: each[1::2] for name, each in WRITTEN.items()},
        MARKETERS,
    ],
    ids=["chosen on", "held out", "marketers"],
)
def test_outcomes_are_told_from_items_and_from_each_other(
    asked: dict[str, list[str]], receipts: Catalogue, rewriter: CatalogueRewriter
) -> None:
    told = {
        name: [meant(rewriter, receipts, one) for one in each if one not in SAID]
        for name, each in asked.items()
    }
    mistaken = [name for name in told.pop("product") if name in OUTCOME_NAMES]
    assert len(mistaken) <= 2  # of 16 to 20
    right = {name: each.count(name) / len(each) for name, each in told.items()}
    assert sum(right.values()) / 4 >= 0.85, right
    assert min(right.values()) >= 0.7, right


@pytest.mark.parametrize(
    "demand",
    ["coupon lovers", "people who will use coupons", "will cash a voucher soon", "coupons"],
)
def test_who_says_coupon_means_none_to_be_sold(
    demand: str, receipts: Catalogue, rewriter: CatalogueRewriter
) -> None:
    """Tills book coupons under headings of their own."""
    assert {"COUPON", "COUPONS/STORE & MFG"} <= {s.name for s in receipts.headings}
    assert meant(rewriter, receipts, demand) == "coupon"


def test_where_none_is_redeemed_the_till_has_the_word(
    receipts_catalogue: Catalogue, lines: LineEncoder
) -> None:
    unlearnt = receipts_catalogue.with_outcomes({"nothing": 9})
    rewriter = CatalogueRewriter(unlearnt, lines, horizon_days=28)
    assert meant(rewriter, unlearnt, "coupon lovers") == "COUPON"


def test_what_was_not_learnt_is_left_alone_and_the_rest_is_read(lines: LineEncoder) -> None:
    """Without coupons in the data, who leaves is still found."""
    catalogue = ITEMS.with_outcomes({"nothing": 9, "a lot": 9, "more": 9})
    rewriter = CatalogueRewriter(catalogue, lines, horizon_days=28)
    assert meant(rewriter, catalogue, "customers at risk of churning") == "nothing"
    assert rewriter.read("will redeem a coupon").sentences == (("will redeem a coupon", 1.0),)


def test_a_model_that_has_learnt_no_outcome_reads_items_where_they_are_likelier(
    lines: LineEncoder,
) -> None:
    demand = "Who would use a coupon for peanut butter because they eat it every day?"
    assert CatalogueRewriter(ITEMS, lines, horizon_days=28).read(demand).note is not None
    learnt = ITEMS.with_outcomes(dict.fromkeys(OUTCOME_NAMES, 9))
    assert meant(CatalogueRewriter(learnt, lines, horizon_days=28), learnt, demand) == "coupon"
