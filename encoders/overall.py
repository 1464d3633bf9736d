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
from encoders.outcome_phrases import PHRASES

_TILL_WORDS = {"coupon": frozenset({"coupon", "coupons", "voucher", "vouchers"})}
"""Outcome → first words of headings under which tills book it: "COUPONS/STORE & MFG"."""

_LEAST = 0.25  # likeness below which a demand is about something else, in the catalogue or not
_LEAD = 0.1  # by which an item has to be likelier: to take one who leaves for a buyer costs most
_UNKNOWN_LEAD = 0.15  # by which an outcome has to be that was not learnt: it is read as nothing
_TOGETHER = 5  # phrases of an outcome that decide
_TEMPERATURE = 0.01
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

    def is_booked_as(self, heading: str) -> bool:
        """Whether a heading books an outcome that the model has learnt.

        Nobody who says "coupon lovers" means people to whom coupons are sold.
        """
        first = heading.lower().split(" ")[0]
        return any(first in _TILL_WORDS.get(outcome.name, ()) for outcome in self.outcomes)

    def is_meant(self, demand_E: np.ndarray, item: float) -> bool:
        """Whether a demand is about overall behaviour, and not the item of that similarity."""
        alike = self._alike(demand_E)
        likest = float(alike.max())
        learnt = self._meant[int(alike.argmax())] is not None
        return likest > _LEAST and likest + (_LEAD if learnt else -_UNKNOWN_LEAD) > item

    def shares(self, demand_E: np.ndarray) -> dict[Subject, float]:
        """What the demand means, by shares; empty if the model has not learnt the likest."""
        alike = self._alike(demand_E)
        if self._meant[int(alike.argmax())] is None:
            return {}
        shares = np.exp((alike - alike.max()) / _TEMPERATURE)
        return {
            meant: float(share)
            for meant, share in zip(self._meant, shares, strict=True) if meant is not None
        }  # fmt: skip

    def _alike(self, demand_E: np.ndarray) -> np.ndarray:
        """Likeness of a demand to each outcome of ``PHRASES``: to the nearest phrases of it."""
        similar_N = self._phrases_NE @ demand_E
        return np.array([
            np.sort(similar_N[self._of_N == n])[-_TOGETHER:].mean() for n in range(len(PHRASES))
        ])  # fmt: skip
