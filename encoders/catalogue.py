"""The catalogue: every subject that sentences were made of, kept beside the weights they trained.

A demand can only be read as something the model has words for. The alignment stage writes the
subjects of its own training data next to ``model.safetensors``; the checkpoint's fingerprint
covers them, so that a demand is never read by another model's vocabulary.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from functools import cached_property

import pyarrow as pa

from encoders import templates

FILE = "catalogue.json"
MAX_HEADINGS = 1_000  # each costs a sentence to encode when a snapshot is opened
ITEM_KINDS = ("purchase", "browsing", "click")
"""Kinds whose subjects are levels of the items' taxonomy, the one that is meant first."""
OUTCOME = "outcome"
"""Kind of the subjects that are overall behaviours (``schema.OUTCOME_NAMES``)."""
_SPOKEN = {
    "nothing": "no visit", "a lot": "a large total", "more": "a growing total",
    "coupon": "use of coupons",
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Something a sentence can be about."""

    kind: str  # one of schema.FACT_KINDS, or OUTCOME
    name: str  # as the data spell it
    level: int  # depth in the taxonomy, 1 = coarsest; 0 = not in it
    parent: str  # the name one level up; "" where there is none
    count: int  # training samples that had the fact

    @property
    def spoken(self) -> str:
        """The subject in a few words, for people."""
        return _SPOKEN.get(self.name, self.name) if self.kind == OUTCOME else self.name.lower()

    @property
    def words(self) -> str:
        """The name as plain words; as it is spelt where it has none, such as "🍺"."""
        return plain(self.name) or self.name.strip()

    def sentence(self, *, horizon_days: int) -> str:
        """The subject in the words of the templates.

        >>> Subject("purchase", "CHEESE", 2, "GROCERY", 9).sentence(horizon_days=28)
        'will buy cheese in the next four weeks'
        """
        if self.kind == OUTCOME:
            return templates.outcome_sentence(self.name, horizon_days=horizon_days)
        return templates.plain_sentence(self.kind, self.name, horizon_days=horizon_days)


@dataclass(frozen=True)
class Catalogue:
    """Subjects in a fixed order: by kind, level and name."""

    subjects: tuple[Subject, ...]

    @classmethod
    def of(cls, rows: Iterable[Subject]) -> Catalogue:
        """Subjects in the catalogue's order; the fact of buying nothing is no subject."""
        named = (s for s in rows if s.name != templates.NOTHING)
        return cls(tuple(sorted(named, key=lambda s: (s.kind, s.level, s.name))))

    @classmethod
    def from_table(cls, table: pa.Table) -> Catalogue:
        """The catalogue of a table with the columns of :class:`Subject`."""
        columns = [table[field.name].to_pylist() for field in fields(Subject)]
        return cls.of(Subject(*row) for row in zip(*columns, strict=True))

    def with_outcomes(self, counts: Mapping[str, int]) -> Catalogue:
        """The catalogue with overall behaviours, each with how many samples showed it.

        One that nobody showed was never learnt, and is no subject.
        """
        shown = {name: count for name, count in counts.items() if count}
        outcomes = [Subject(OUTCOME, name, 0, "", count) for name, count in shown.items()]
        return Catalogue.of([*self.subjects, *outcomes])

    def without(self, names: Iterable[str]) -> Catalogue:
        """The catalogue as if subjects of these names, and what lies below them, were unknown."""
        gone = set(names)
        for subject in sorted(self.subjects, key=lambda s: s.level):
            if subject.parent in gone:
                gone.add(subject.name)
        return Catalogue(tuple(s for s in self.subjects if s.name not in gone))

    @classmethod
    def from_json(cls, content: bytes) -> Catalogue:
        """What :meth:`to_json` wrote. Raises ValueError or TypeError when it is damaged."""
        return cls.of(Subject(*row) for row in json.loads(content))

    def to_json(self) -> bytes:
        """One list per subject; the same subjects give the same bytes."""
        rows = [json.dumps(astuple(subject)) for subject in self.subjects]
        return ("[" + ",\n".join(rows) + "]\n").encode()

    @cached_property
    def items(self) -> tuple[Subject, ...]:
        """The subjects that are bought, browsed or clicked."""
        return tuple(s for s in self.subjects if s.kind in ITEM_KINDS)

    @cached_property
    def outcomes(self) -> tuple[Subject, ...]:
        """The overall behaviours."""
        return tuple(s for s in self.subjects if s.kind == OUTCOME)

    @cached_property
    def headings(self) -> tuple[Subject, ...]:
        """What demands are read as: items above the finest of three levels or more.

        The finest names ("premium", "traditional") mean little on their own and few sentences are
        made of them; they lead to their heading. At most :data:`MAX_HEADINGS`, the most frequent.
        """
        deepest = max((s.level for s in self.items), default=0)
        coarse = [s for s in self.items if s.level < max(deepest, 3)]
        kept = set(sorted(coarse, key=lambda s: (-s.count, s.name, s.kind))[:MAX_HEADINGS])
        return tuple(s for s in coarse if s in kept)

    @cached_property
    def by_name(self) -> dict[str, Subject]:
        """Headings, each name once: bought rather than browsed, browsed rather than clicked.

        Demands are read, and what happened before is counted, by this one order.
        """
        found: dict[str, Subject] = {}
        for subject in sorted(self.headings, key=lambda s: ITEM_KINDS.index(s.kind)):
            found.setdefault(subject.name, subject)
        return found

    def __len__(self) -> int:
        return len(self.subjects)


def plain(name: str) -> str:
    """A name as plain lower-case words of any alphabet, without the punctuation of a catalogue.

    >>> plain("ICE CREAM/MILK/SHERBTS"), plain("SEAFOOD - FROZEN"), plain("КОФЕ / ЧАЙ")
    ('ice cream milk sherbts', 'seafood frozen', 'кофе чай')
    """
    spelt = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(spelt.translate(_SPACED).split())


class _Spaced(dict[int, int]):
    """Characters as they are, those that part words as a space; filled as they are met."""

    def __missing__(self, point: int) -> int:
        # Marks stay with their letters: without them Hindi and Thai words fall to pieces.
        kept = unicodedata.category(chr(point))[0] in "LMN" or chr(point) in "%&'"
        self[point] = point if kept else ord(" ")
        return self[point]


_SPACED = _Spaced()
