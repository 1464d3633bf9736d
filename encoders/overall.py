"""Demands about overall behaviour: leaving, spending, coupons. They name no item of a catalogue.

Such a demand is told by its likeness to phrases about such behaviour, and read as the outcomes that
the model has learnt (``schema.OUTCOME_NAMES``). "More than before" differs from "a lot" in a word
or two, so a few phrases of each outcome decide together, and the likest outcome takes nearly all.
Who says it in the model's own words (``templates``) is taken at them, horizon included.

Shapes: N phrases, E width of the sentence vectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from encoders import templates
from encoders.catalogue import Subject

PHRASES: dict[str, tuple[str, ...]] = {
    "coupon": (
        "will redeem a coupon", "people who use vouchers and discounts",
        "people who answer to offers", "will hand in money-off vouchers",
        "deal seekers who respond to promotions", "price-conscious bargain hunters",
        "will take up a discount offer from a campaign",
    ),
    "nothing": (
        "will not shop at all", "customers who stop coming", "people who stay away from the shop",
        "at risk of churning", "customers about to leave us", "lapsed and inactive customers",
        "will not visit for a while", "dormant accounts that have gone quiet",
        "people we are losing to a competitor", "will be absent and skip their shopping",
    ),
    "a lot": (
        "will spend a lot of money", "customers with a high total spending", "our best customers",
        "people who come to the shop often", "big spenders", "our most valuable customers",
        "high-value shoppers who bring the most revenue", "heavy shoppers with large baskets",
        "the top quarter by spending", "VIP customers",
    ),
    "more": (
        "will spend clearly more than before", "customers whose shopping is increasing",
        "customers whose spending is growing", "will spend more than usual",
        "on the way up, with rising bills",
        "will step up their purchases compared with last month", "baskets that are getting bigger",
        "upward trend in spending",
    ),
}  # fmt: skip
"""Outcome → what a demand about it may sound like."""

_LEAST = 0.35  # similarity below which a demand is about something else, in the catalogue or not
_LEAD = 0.05  # by which an item has to be likelier: to take one who leaves for a buyer costs most
_TOGETHER = 3  # phrases of an outcome that decide
_TEMPERATURE = 0.02
_WEEKS = range(1, 9)  # of horizons that templates spell out
_WHO = re.compile(r"^(?:\w+ (?:that|who)|who) ")


class OverallBehaviour:
    """Tells demands about overall behaviour.

    Args:
        vectors: texts → unit vectors, float32 [N, E].
        learnt: the outcomes that the model knows.
    """

    def __init__(self, vectors: Callable[[Sequence[str]], np.ndarray], learnt: Sequence[Subject]):
        self.outcomes = tuple(learnt)
        known = {outcome.name: outcome for outcome in learnt}
        self._meant = [known.get(name) for name in PHRASES]
        self._of_N = np.repeat(np.arange(len(PHRASES)), [len(each) for each in PHRASES.values()])
        self._own_words = {
            templates.outcome_sentence(outcome.name, horizon_days=7 * weeks, wording=wording):
            templates.outcome_sentence(outcome.name, horizon_days=7 * weeks)
            for outcome in learnt for weeks in _WEEKS
            for wording in range(templates.num_outcome_wordings(outcome.name))
        }  # fmt: skip
        self._phrases_NE = vectors([phrase for each in PHRASES.values() for phrase in each])

    def said(self, demand: str) -> str | None:
        """The plain sentence about an outcome, where the demand is one of the model's own.

        "Households that will spend a lot in the next four weeks." says what "will spend a lot in
        the next four weeks" does.
        """
        words = " ".join(demand.casefold().split()).rstrip(" .!?")
        return self._own_words.get(words) or self._own_words.get(_WHO.sub("", words))

    def is_meant(self, demand_E: np.ndarray, item: float) -> bool:
        """Whether a demand is about overall behaviour, and not the item of that similarity."""
        similar_N = self._phrases_NE @ demand_E
        likest = float(similar_N.max())
        learnt = self._meant[self._of_N[int(similar_N.argmax())]] is not None
        return likest > _LEAST and likest + (_LEAD if learnt else 0.0) > item

    def shares(self, demand_E: np.ndarray) -> dict[Subject, float]:
        """What the demand means, by shares; empty if the model has not learnt the likest."""
        similar_N = self._phrases_NE @ demand_E
        alike = np.array([
            np.sort(similar_N[self._of_N == n])[-_TOGETHER:].mean() for n in range(len(PHRASES))
        ])  # fmt: skip
        if self._meant[int(alike.argmax())] is None:
            return {}
        shares = np.exp((alike - alike.max()) / _TEMPERATURE)
        return {
            meant: float(share)
            for meant, share in zip(self._meant, shares, strict=True) if meant is not None
        }  # fmt: skip
