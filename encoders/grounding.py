"""Rewriting grounded in the catalogue: a demand is read as the subjects that it comes closest to.

Every heading of the catalogue is described several times: by its name, by its name under the one
above it, and by each finer subject in it. A demand, as it stands and without its generic words, is
compared with all of them by frozen sentence vectors. The best headings share the query by a softmax
over similarities; the demand itself keeps a share, since a reading may be wrong.

Demands about overall behaviour (coupons, spending, staying away) name no subject. They are told by
their likeness to a few sentences about such behaviour, and left alone.

Shapes: T descriptions, H headings, E width of the sentence vectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.catalogue import Catalogue, Subject, plain
from encoders.rewriting import MAX_SUBJECTS, Reading, as_it_stands, mixture

Vectors = Callable[[Sequence[str]], np.ndarray]
"""Texts → unit vectors, float32 [N, E]."""

_GENERIC = frozenset(
    """a about all an and any anybody are as at be buy buyers buying by customers day days do every
    everybody everyone families family find for four get go going has have home household
    households in into is it its likely like look looking love lovers many may me might month months
    more most need needs next of on or our out people probably purchase run soon shopper shoppers
    some stock take that the their them these they this those three to two up use used users want
    wants week weeks which who whose will with would""".split()
)
_OVERALL = (
    "will redeem a coupon", "people who use vouchers and discounts", "people who answer to offers",
    "will not shop at all", "customers who stop coming", "people who stay away from the shop",
    "will spend a lot of money", "customers with a high total spending", "our best customers",
    "will spend clearly more than before", "customers whose shopping is increasing",
    "people who come to the shop often",
)  # fmt: skip


@dataclass(frozen=True)
class GroundingConfig:
    """How sharply and how far a demand is read; chosen in docs/decisions/query-rewriting.md."""

    temperature: float = 0.05
    own_share: float = 0.3  # of the demand as it stands
    least: float = 0.2  # similarity below which nothing matches


class CatalogueRewriter:
    """Reads demands by their nearest descriptions.

    Args:
        described: texts to compare with, each computed once.
        asked: a demand's texts, new each time; by default the same as ``described``.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        described: Vectors,
        asked: Vectors | None = None,
        *,
        horizon_days: int,
        config: GroundingConfig | None = None,
    ):
        self._config = config or GroundingConfig()
        self._asked = asked or described
        self._horizon = horizon_days
        self._headings = _one_kind_each(catalogue)
        texts, self._owner_T = _descriptions(catalogue, self._headings)
        self._described_TE = described(texts) if texts else np.zeros((0, 1), np.float32)
        self._overall_NE = described(_OVERALL)

    def read(self, demand: str) -> Reading:
        """The demand as a mixture of sentences about the best matching headings."""
        if not self._headings:
            return as_it_stands(demand, "The catalogue is empty: the demand is read literally.")
        whole_E = self._vector(demand)
        score_H = self._scores(whole_E)
        best = float(score_H.max())
        if float((self._overall_NE @ whole_E).max()) > best:
            return as_it_stands(demand)
        if best < self._config.least:
            return as_it_stands(
                demand, "Nothing in the catalogue matches: the demand is read literally."
            )
        return mixture(
            demand, self._shares(score_H), own_share=self._config.own_share,
            horizon_days=self._horizon,
        )  # fmt: skip

    def vocabulary(self) -> Sequence[str]:
        """The sentence about each heading."""
        return [heading.sentence(horizon_days=self._horizon) for heading in self._headings]

    def _vector(self, demand: str) -> np.ndarray:
        """Unit vector of the demand: half as it stands, half without its generic words."""
        both = self._asked([demand, without_generic(demand)])
        vector: np.ndarray = both.sum(0)
        return vector / max(float(np.linalg.norm(vector)), 1e-9)

    def _scores(self, vector_E: np.ndarray) -> np.ndarray:
        """Similarity of each heading's nearest description, [H]."""
        score_H = np.full(len(self._headings), -1.0)
        np.maximum.at(score_H, self._owner_T, self._described_TE @ vector_E)
        return score_H

    def _shares(self, score_H: np.ndarray) -> dict[Subject, float]:
        best = np.argsort(-score_H, kind="stable")[:MAX_SUBJECTS]
        weight = np.exp((score_H[best] - score_H[best[0]]) / self._config.temperature)
        return {self._headings[h]: float(w) for h, w in zip(best, weight, strict=True)}


def without_generic(demand: str) -> str:
    """The words of a demand that could name a subject; all of them if none could.

    >>> without_generic("Households that will buy beer or wine next month")
    'beer, wine'
    """
    parts = []
    for part in re.split(r"[,;]|\b(?:or|and)\b", demand.lower()):
        words = [word for word in plain(part).split() if word not in _GENERIC]
        parts += [" ".join(words)] if words else []
    return ", ".join(parts) or demand


def _one_kind_each(catalogue: Catalogue) -> list[Subject]:
    """Headings, each name once: bought rather than browsed, browsed rather than clicked."""
    order = ("purchase", "browsing", "click")
    by_name: dict[str, Subject] = {}
    for subject in sorted(catalogue.headings, key=lambda s: order.index(s.kind)):
        by_name.setdefault(subject.name, subject)
    return sorted(by_name.values(), key=lambda s: s.name)


def _descriptions(
    catalogue: Catalogue, headings: Sequence[Subject]
) -> tuple[list[str], np.ndarray]:
    """Texts, and the heading that each describes, int64 [T]."""
    at = {heading.name: h for h, heading in enumerate(headings)}
    texts: dict[tuple[str, int], None] = {}
    for h, heading in enumerate(headings):
        texts[plain(heading.name), h] = None
    for subject in catalogue.items:
        if subject.parent in at:
            above = at[subject.parent]
            texts[plain(subject.name), above] = None
            texts[f"{plain(subject.name)} {plain(subject.parent)}", above] = None
    return [text for text, _ in texts], np.array([h for _, h in texts], np.int64)
