"""Rewriting grounded in the catalogue: a demand is read as the subjects that it comes closest to.

Every heading of the catalogue is described by its name and by each finer subject in it. A demand,
as it stands and without its generic words, is compared with all descriptions by frozen sentence
vectors. The nearest ones vote for their headings, by a softmax over similarities. A demand that
says a heading's own name, or the names of several ("beer or wine"), is read as those and nothing
else. The frozen vectors know English: in other alphabets names are found by their letters.

Demands about overall behaviour (coupons, spending, staying away) name no item: ``overall`` tells
what they mean, if the model has learnt it; else they are left alone.

Shapes: T descriptions, H headings, E width of the sentence vectors.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from encoders.catalogue import Catalogue, Subject, plain
from encoders.overall import OverallBehaviour
from encoders.rewriting import Reading, as_it_stands, mixture

_REMEMBERED = 4_096
_UNSPACED = frozenset("CJK HIRAGANA KATAKANA THAI LAO KHMER MYANMAR".split())
"""Scripts, as Unicode names their letters, that put no spaces between words."""
_BY_LETTERS = " Only English is read by its meaning, this by its letters."
_SEPARATORS = (r"[,;]|\bor\b", r"[,;]|\b(?:or|and)\b")
"""Between the things a demand names: "and" last, since headings have it in their names."""
Vectors = Callable[[Sequence[str]], np.ndarray]
"""Texts → unit vectors, float32 [N, E]."""

_GENERIC = frozenset(
    """a about all an and any anybody are as at be buy buyers buying buys by customers day days
    do every everybody everyone families family find for four get go going has have home
    household households in into is it its likely like look looking love lovers many may me
    might month months more most need needs next of on or our out people probably purchase run
    soon shopper shoppers some stock take that the their them these they this those three to two
    up use used users want wants week weeks which who whose will with would""".split()
)


@dataclass(frozen=True)
class GroundingConfig:
    """How sharply and how far a demand is read; chosen in docs/decisions/query-rewriting.md."""

    temperature: float = 0.08
    votes: int = 30  # nearest descriptions that count
    own_share: float = 0.0  # of the demand as it stands, which then has to be encoded too
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
        self._overall = OverallBehaviour(described, catalogue.outcomes)
        self._headings = sorted(
            (h for h in catalogue.by_name.values() if not self._overall.is_booked_as(h.words)),
            key=lambda s: s.name,
        )
        self._by_words = {_content(heading.name): heading for heading in reversed(self._headings)}
        other = [heading for heading in self._headings if not heading.words.isascii()]
        self._letters = [
            (_within(heading.words), heading)
            for heading in sorted(other, key=lambda h: -len(h.words))  # longer ones hold shorter
        ]
        texts, self._owner_T = _descriptions(catalogue, self._headings)
        self._described_TE = described(texts) if texts else np.zeros((0, 1), np.float32)
        self._vector = lru_cache(_REMEMBERED)(self._compute)

    def read(self, demand: str) -> Reading:
        """The demand as a mixture of sentences about the best matching headings."""
        if not self._headings:
            return as_it_stands(demand, "The catalogue is empty: the demand is read literally.")
        if named := self._named(demand):
            return self._reading(demand, dict.fromkeys(named, 1.0))
        if (said := self._overall.said(demand)) is not None:
            return as_it_stands(said, None if said == demand else f"Read as: {said}.")
        demand_E = self._vector(demand)
        similar_T = self._described_TE @ demand_E
        best = float(similar_T.max())
        if self._overall.is_meant(demand_E, best):
            shares = self._overall.shares(demand_E)
            return self._reading(demand, shares) if shares else as_it_stands(demand)
        if best < self._config.least:
            return as_it_stands(
                demand, "Nothing in the catalogue matches: the demand is read literally."
            )
        reading = self._reading(demand, self._shares(similar_T))
        words = _specific(demand)
        if words and not any(map(str.isascii, words)):
            return replace(reading, note=f"{reading.note}{_BY_LETTERS}")
        return reading

    def nearest(self, words: str) -> tuple[Subject, float] | None:
        """The heading that words come closest to, and the similarity of its best description."""
        if not self._headings:
            return None
        similar_T = self._described_TE @ self._vector(words)
        heading = next(iter(self._shares(similar_T)))
        owned = self._owner_T == self._headings.index(heading)
        return heading, float(similar_T[owned].max())

    def vocabulary(self) -> Sequence[str]:
        """The sentence about each heading and each outcome."""
        subjects = [*self._headings, *self._overall.outcomes]
        return [subject.sentence(horizon_days=self._horizon) for subject in subjects]

    def _named(self, demand: str) -> list[Subject]:
        """The headings that a demand says by name; none where it says anything else besides."""
        if (one := self._by_words.get(_content(demand))) is not None:
            return [one]
        for separator in _SEPARATORS:
            parts = re.split(separator, demand.lower())
            said = [self._by_words.get(_content(part)) for part in parts if _specific(part)]
            if named := [heading for heading in said if heading is not None]:
                if len(named) == len(said):
                    return named
        return self._said_in_letters(demand) if self._letters else []

    def _said_in_letters(self, demand: str) -> list[Subject]:
        """The headings of another alphabet within a demand that says nothing in English besides."""
        rest = plain(demand)
        named: list[Subject] = []
        for pattern, heading in self._letters:
            rest, times = pattern.subn(" ", rest)
            named += [heading] if times else []
        return [] if any(map(str.isascii, _specific(rest))) else named

    def _reading(self, demand: str, shares: dict[Subject, float]) -> Reading:
        own_share = self._config.own_share
        return mixture(demand, shares, own_share=own_share, horizon_days=self._horizon)

    def _compute(self, demand: str) -> np.ndarray:
        """Unit vector of the demand: half as it stands, half without its generic words."""
        both = self._asked([demand, without_generic(demand)])
        vector: np.ndarray = both.sum(0)
        vector /= max(float(np.linalg.norm(vector)), 1e-9)
        vector.flags.writeable = False  # the latest are remembered
        return vector

    def _shares(self, similar_T: np.ndarray) -> dict[Subject, float]:
        """The nearest descriptions' votes, gathered by heading, the largest first."""
        nearest = np.argsort(-similar_T, kind="stable")[: self._config.votes]
        weight = np.exp((similar_T[nearest] - similar_T[nearest[0]]) / self._config.temperature)
        share_H = np.bincount(self._owner_T[nearest], weight, minlength=len(self._headings))
        order = np.argsort(-share_H, kind="stable")
        return {self._headings[h]: float(share_H[h]) for h in order if share_H[h] > 0}


def without_generic(demand: str) -> str:
    """The words of a demand that could name a subject; all of them if none could.

    >>> without_generic("Households that will buy beer or wine next month")
    'beer, wine'
    """
    parts = []
    for part in re.split(_SEPARATORS[-1], demand.lower()):
        words = _specific(part)
        parts += [" ".join(words)] if words else []
    return ", ".join(parts) or demand


def _content(text: str) -> tuple[str, ...]:
    """The words that could name a subject, in order, without the s of a plural."""
    return tuple(word.removesuffix("s") for word in _specific(text)) or (text,)


def _within(name: str) -> re.Pattern[str]:
    """Where a plain demand holds a name of another alphabet, as a word where words can be told.

    Chinese puts no spaces around words, and Korean joins particles to their ends.
    """
    script = unicodedata.name(name[0], "").split(" ")[0]
    start = "" if script in _UNSPACED else r"(?<!\S)"
    end = "" if script in _UNSPACED or script == "HANGUL" else r"(?!\S)"
    return re.compile(start + re.escape(name) + end)


def _specific(text: str) -> list[str]:
    return [word for word in plain(text).split() if word not in _GENERIC]


def _descriptions(
    catalogue: Catalogue, headings: Sequence[Subject]
) -> tuple[list[str], np.ndarray]:
    """Texts, and the heading that each describes, int64 [T]."""
    at = {heading.name: h for h, heading in enumerate(headings)}
    described = [(heading.words, h) for h, heading in enumerate(headings)]
    # Spelt as the items' lines are, so that their vectors are already known from training.
    finer = {
        (f"{subject.parent}: {subject.name}", at[subject.parent])
        for subject in catalogue.items
        if subject.name not in at and subject.parent in at
    }
    texts, owners = zip(*described, *sorted(finer), strict=True) if described else ((), ())
    return list(texts), np.array(owners, np.int64)
