"""What the rewriter is tuned on: conversations and demands made up from the catalogue alone.

Stage "domain" teaches the catalogue's own words: several rounds of question and answer about what
belongs to what. Stage "demands" teaches the task: a demand, worded in many ways and about a heading
or the things under it, is answered by the template sentence that the user model knows.

No demand that rewriting is measured by (``ray_jobs/demands``) is among them; a test holds this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from encoders import templates
from encoders.catalogue import Catalogue, Subject, plain
from encoders.rewriter_model import Turn

NOTHING_NAMED = "none"
"""Answer to a demand that names nothing of the catalogue."""

_ABOUT_HEADING = ("What belongs to {}?", "What do we sell under {}?", "Name some kinds of {}.")
_MORE = ("What else is there?", "And what more?", "Anything else?")
_ABOUT_CHILD = ("Where do I find {}?", "What is {} a kind of?", "Which heading has {}?")
_ABOUT_PARENT = ("Which department has {}?", "Where does {} belong?")
_DEMANDS = (
    "people who like {}", "households that will need {}", "who is going to buy {}?",
    "shoppers who are looking for {}", "families that love {}", "customers who run out of {}",
    "find me everybody who may want {} soon", "{} fans", "those who use {} a lot",
    "people we could send an offer for {}", "buyers of {}", "people who care about {}",
    "which households will take {} home next month?", "everyone likely to try {}",
    "an audience for our new {}", "people who have {} at home", "{}",
)  # fmt: skip
_OVERALL = (
    "everybody", "our best customers", "people who come rarely", "customers who pay with points",
    "households that answer to promotions", "people whose shopping grows", "all shoppers",
    "customers who stopped coming", "people with full carts",
)  # fmt: skip
_OVERALL_SHARE, _SEVERAL_SHARE, _CHILD_SHARE = 0.08, 0.15, 0.6


class Synthesis:
    """Draws dialogues; the same generator state gives the same ones."""

    def __init__(self, catalogue: Catalogue, *, horizon_days: int):
        self._headings = tuple(catalogue.by_name.values())  # as demands are read afterwards
        self._horizon = horizon_days
        self._children: dict[str, list[Subject]] = defaultdict(list)
        for subject in catalogue.items:
            self._children[subject.parent].append(subject)
        # The root keeps rare headings in play, as in the pairs that the user model is trained on.
        weight = np.sqrt([subject.count for subject in self._headings])
        self._weight = weight / weight.sum()

    def conversation(self, rng: np.random.Generator) -> list[Turn]:
        """Several rounds about one heading: what is in it, what else, where one of it is found."""
        (heading,) = self._draw(rng, 1)
        name = heading.words
        children = self._some(rng, [c.words for c in self._children[heading.name]], 6)
        turns = []
        if children:
            turns.append((_any(rng, _ABOUT_HEADING).format(name), ", ".join(children[:3])))
        if len(children) > 3:
            turns.append((_any(rng, _MORE), ", ".join(children[3:])))
        if children:
            turns.append((_any(rng, _ABOUT_CHILD).format(children[-1]), name))
        parent = plain(heading.parent) or "no other"
        turns.append((_any(rng, _ABOUT_PARENT).format(name), parent))
        return turns

    def demand(self, rng: np.random.Generator) -> list[Turn]:
        """One demand and the sentence that says it in the model's words."""
        if rng.random() < _OVERALL_SHARE:
            return [(_any(rng, _OVERALL), NOTHING_NAMED)]
        chosen = self._draw(rng, 2 if rng.random() < _SEVERAL_SHARE else 1)
        chosen = [each for each in chosen if each.kind == chosen[0].kind]
        phrase = _any(rng, (" or ", " and ")).join(self._phrase(each, rng) for each in chosen)
        sentence = templates.sentence(
            chosen[0].kind, [each.words for each in chosen],
            horizon_days=self._horizon, wording=1,
        )  # fmt: skip
        return [(_any(rng, _DEMANDS).format(phrase), sentence)]

    def _phrase(self, subject: Subject, rng: np.random.Generator) -> str:
        """The subject by its own name, or by the names of one or two things under it."""
        children = [child.words for child in self._children[subject.name]]
        if not children or rng.random() > _CHILD_SHARE:
            return subject.words
        return " and ".join(self._some(rng, children, int(rng.integers(1, 3))))

    def _draw(self, rng: np.random.Generator, num: int) -> list[Subject]:
        num = min(num, int((self._weight > 0).sum()))
        at = rng.choice(len(self._headings), num, replace=False, p=self._weight)
        return [self._headings[i] for i in at]

    @staticmethod
    def _some(rng: np.random.Generator, names: Sequence[str], num: int) -> list[str]:
        return [names[i] for i in rng.permutation(len(names))[:num]]


def _any(rng: np.random.Generator, among: Sequence[str]) -> str:
    return among[int(rng.integers(len(among)))]
