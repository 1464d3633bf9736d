"""Rewriting by the tuned language model, checked against the catalogue.

Its greedy answer should be a template sentence; only names of the catalogue in it count. When it
names none, another rewriter, or nobody, reads the demand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from encoders import templates
from encoders.catalogue import Catalogue
from encoders.rewriting import Reading, Rewriter, as_it_stands, mixture, named_in

_MAX_DEMAND = 300
_SLOT = "\x00"


class Answers(Protocol):
    """The language model: ``RewriterModel``."""

    def answer(self, asked: str, /) -> str: ...


class LanguageRewriter:
    """Reads demands by asking the language model.

    Args:
        instead: who reads a demand to which the model names nothing that is in the catalogue.
    """

    def __init__(
        self,
        model: Answers,
        catalogue: Catalogue,
        *,
        horizon_days: int,
        own_share: float = 0.1,
        instead: Rewriter | None = None,
    ):
        self._model, self._catalogue, self._instead = model, catalogue, instead
        self._horizon, self._own_share = horizon_days, own_share
        kinds = {subject.kind for subject in catalogue.headings}
        self._templates = [_pattern(kind, horizon_days) for kind in sorted(kinds)]

    def read(self, demand: str) -> Reading:
        """The demand as sentences about the subjects that the model names."""
        answer = self._model.answer(demand[:_MAX_DEMAND])
        subjects = named_in(self._items(answer), self._catalogue)
        if subjects:
            shares = dict.fromkeys(subjects, 1.0)
            return mixture(demand, shares, own_share=self._own_share, horizon_days=self._horizon)
        if self._instead is not None:
            return replace(self._instead.read(demand), by_stand_in=True)
        return as_it_stands(demand, "The demand names nothing of the catalogue: read literally.")

    def vocabulary(self) -> Sequence[str]:
        """Sentences about every heading."""
        headings = self._catalogue.by_name.values()
        return [subject.sentence(horizon_days=self._horizon) for subject in headings]

    def _items(self, answer: str) -> str:
        """What stands in the template's place for items; "" if the answer is no such sentence."""
        first = answer.strip().splitlines()[0] if answer.strip() else ""
        found = (pattern.fullmatch(first) for pattern in self._templates)
        return next((match[1] for match in found if match), "")


def _pattern(kind: str, horizon_days: int) -> re.Pattern[str]:
    sentence = templates.sentence(kind, [_SLOT], horizon_days=horizon_days, wording=1)
    before, after = (re.escape(part) for part in sentence.split(_SLOT))
    return re.compile(f"{before}(.+?)(?:{after})?")  # the end may have been cut off
