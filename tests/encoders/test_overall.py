"""Demands about overall behaviour, written by somebody who knew neither phrases nor code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encoders.catalogue import Catalogue, Subject
from encoders.grounding import CatalogueRewriter
from encoders.overall import PHRASES
from encoders.text import LineEncoder
from feature_repo.schema import OUTCOME_NAMES
from ray_jobs.protocol import CATEGORIES

WRITTEN = json.loads((Path(__file__).parents[1] / "demands/overall.json").read_text())
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


@pytest.mark.parametrize("half", [0, 1], ids=["chosen on", "held out"])
def test_outcomes_are_told_from_items_and_from_each_other(half: int, lines: LineEncoder) -> None:
    catalogue = ITEMS.with_outcomes(dict.fromkeys(OUTCOME_NAMES, 9))
    rewriter = CatalogueRewriter(catalogue, lines, horizon_days=28)
    told = {
        name: [meant(rewriter, catalogue, one) for one in written[half::2] if one not in SAID]
        for name, written in WRITTEN.items()
    }
    mistaken = [name for name in told.pop("product") if name in OUTCOME_NAMES]
    assert len(mistaken) <= 5  # of 20, most of which are about products that are not carried
    right = {name: each.count(name) / len(each) for name, each in told.items()}
    assert sum(right.values()) / 4 >= 0.8, right
    assert min(right.values()) >= 0.7, right


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
