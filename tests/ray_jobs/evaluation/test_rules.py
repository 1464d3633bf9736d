"""Sentences read into labels, with a language model that knows a handful of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ray_jobs import metrics
from ray_jobs.evaluation import rules
from ray_jobs.protocol import Protocol, Task

WORDS = ("cheese", "coffee", "dog", "coupons", "shop", "money", "more", "beers")


def encode(sentences: Sequence[str]) -> np.ndarray:
    """A bag of eight words, and a constant."""
    rows = [[float(word in text.lower()) for word in WORDS] + [0.1] for text in sentences]
    return np.array(rows, np.float32)


@pytest.fixture(scope="module")
def protocol(protocol_at: Callable[..., Protocol]) -> Protocol:
    return protocol_at(users=120)


def test_a_sentence_is_read_into_its_label_and_ranks_by_it(protocol: Protocol) -> None:
    reader = rules.plain(protocol, encode)
    coffee = next(task for task in protocol.purchases() if task.name == "COFFEE")
    assert reader.label("people who need coffee").name == "COFFEE"
    assert reader.label("who redeems coupons often") == rules.Label("coupon", "C", 84)
    scores = reader.score(coffee)
    assert metrics.auc(scores, coffee.labels) > 0.7
    wrong = Task("A", "COFFEE", "dog", coffee.users, coffee.labels)
    assert metrics.auc(reader.score(wrong), coffee.labels) < metrics.auc(scores, coffee.labels)


def test_among_new_buyers_a_rule_ranks_by_activity(protocol: Protocol) -> None:
    """None of them bought it lately: their counts are equal."""
    coffee = next(task for task in protocol.new_buyers(least=1) if task.name == "COFFEE")
    active = protocol.activity(half_life=20.0)
    activity = np.array([active.get(user, 0.0) for user in coffee.users])
    scores = rules.plain(protocol, encode).score(coffee)
    assert np.array_equal(np.argsort(scores), np.argsort(activity))


def test_the_tuned_reader_learns_categories_by_their_products(
    protocol: Protocol, protocol_at: Callable[..., Protocol]
) -> None:
    reader = rules.fine_tuned(protocol, protocol, encode)
    label = reader.label("will buy coffee kind in the next four weeks")
    assert label.name == "COFFEE" and label.days in rules.WINDOWS
    assert reader.label("stays away and does not shop").group == "D"


def test_pairs_ask_for_categories_by_their_product_types(protocol: Protocol) -> None:
    found = rules.subjects(protocol.con)
    assert found["CHEESE KIND"] == found["CHEESE"] == "CHEESE"
    asked, meant = rules.pairs(found)
    assert len(asked) == len(meant) == len(set(zip(asked, meant, strict=True)))
    assert "will buy cheese in the next four weeks" in asked
    assert any("cheese kind" in sentence for sentence in asked)
