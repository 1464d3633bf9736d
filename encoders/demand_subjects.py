"""Which subject of the catalogue the words of a demand name.

By name first: all the words of a heading, or a heading that holds them all; then the same with
slips of the pen mended; then by meaning, if a frozen sentence encoder finds a heading near enough.
A rule needs more than that: a subject that the facts know of its verb (:class:`SubjectsOfVerbs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, lru_cache

from encoders.catalogue import Subject, plain

Nearest = Callable[[str], tuple[Subject, float] | None]
"""Words → the heading that they mean and how sure that is, 0 to 1."""
Ground = Callable[[str], str | None]
"""Words → the heading of the catalogue that they name, or None."""

SURE = 0.5
"""Similarity below which a meaning is not taken for a name."""


class Subjects:
    """Finds subjects by name and by meaning.

    Args:
        headings: what may be named.
        nearest: by meaning (:meth:`encoders.grounding.CatalogueRewriter.nearest`); without it only
            names count.
    """

    def __init__(self, headings: Sequence[Subject], nearest: Nearest | None = None):
        self._headings = sorted(
            ((_stems(heading.name), heading) for heading in headings),
            key=lambda pair: (-pair[1].count, pair[1].name),
        )
        self._nearest = nearest
        self._letters = sorted({stem for stems, _ in self._headings for stem in stems})
        self._find = lru_cache(4_096)(self._look_up)

    def __call__(self, words: str) -> str | None:
        """The subject's name, or None if nothing in the catalogue is meant."""
        return self._find(words)

    def named(self, words: str) -> str | None:
        """The subject that the words say by its name, slips not mended."""
        stems = _stems(words)
        return self._by_name(stems) if stems else None

    def _look_up(self, words: str) -> str | None:
        stems = _stems(words)
        if not stems:
            return None
        for said in (stems, self._mended(stems)):
            if (found := self._by_name(said)) is not None:
                return found
        near = self._nearest(words) if self._nearest is not None else None
        return near[0].name if near is not None and near[1] >= SURE else None

    def _by_name(self, stems: tuple[str, ...]) -> str | None:
        wanted = set(stems)
        exact = [heading for named, heading in self._headings if set(named) == wanted]
        holding = [heading for named, heading in self._headings if wanted <= set(named)]
        found = exact or holding
        return found[0].name if found else None

    def _mended(self, stems: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            (get_close_matches(stem, self._letters, 1, 0.8) or [stem])[0] for stem in stems
        )


class SubjectsOfVerbs:
    """Finds subjects that rules may name: a heading may never have been bought, and what people
    searched for are texts of their own.

    Args:
        subjects: what the facts tell of, by verb.
    """

    def __init__(self, ground: Ground, subjects: Mapping[str, frozenset[str]]):
        self._ground, self._subjects = ground, subjects
        self._by_stems = cache(self._stemmed)

    def __call__(self, words: str, verb: str) -> str | None:
        """The verb's subject as the facts spell it, or None."""
        known = self._subjects.get(verb, frozenset())
        if words in known:
            return words
        heading = self._ground(words)
        return heading if heading in known else self._by_stems(verb).get(_stems(words))

    def are_named(self, words: str, verb: str) -> bool:
        """Whether the words name anything, be it that the verb is never told of it."""
        return self._ground(words) is not None or self(words, verb) is not None

    def _stemmed(self, verb: str) -> dict[tuple[str, ...], str]:
        names = sorted(self._subjects.get(verb, ()), reverse=True)
        return {stems: name for name in names if (stems := _stems(name))}


def _stems(words: str) -> tuple[str, ...]:
    """Plain words without the s of a plural."""
    kept = (w for w in plain(words).split() if w not in ("and", "of", "the", "a", "&"))
    return tuple(w.removesuffix("s") if len(w) > 3 else w for w in kept)
