"""Query rewriting (FOUND 4.4.1): a demand in anybody's words → sentences the model was trained on.

A rewriter is anything with :meth:`Rewriter.read`. What it reads is a mixture: sentences and their
shares. The query vector is their weighted sum, so that a doubtful reading leans to several sides
instead of betting on one. The demand itself may be one of the sentences.

Three rewriters: ``grounding`` (the catalogue alone), ``rewriter_model`` (a small language model,
tuned), ``endpoint`` (any large one by URL). What a language model says is used only to pick
subjects of the catalogue: :func:`named_in` drops everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from encoders.catalogue import Catalogue, Subject, plain

Choice = Literal["none", "catalogue", "language-model", "endpoint"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
DEFAULT: Choice = "catalogue"
"""Whichever measured best: docs/decisions/query-rewriting.md."""
MAX_SUBJECTS = 5  # that a language model may name
MAX_NAMED = 3  # in the note
_MAX_ANSWER = 2_000


@dataclass(frozen=True)
class Reading:
    """What a demand was read as: sentences and their shares, which sum to 1."""

    sentences: tuple[tuple[str, float], ...]
    note: str | None = None  # for whoever asked
    by_stand_in: bool = False  # the rewriter itself found nothing, and another one read it


class Rewriter(Protocol):
    """Reads demands. Never fails: what it cannot read is left as it stands, with a note."""

    def read(self, demand: str) -> Reading:
        """The demand as sentences in the model's words."""
        ...

    def vocabulary(self) -> Sequence[str]:
        """Sentences that readings are made of, worth encoding before somebody waits."""
        ...


def as_it_stands(demand: str, note: str | None = None) -> Reading:
    """The demand, not rewritten."""
    return Reading(((demand, 1.0),), note)


def mixture(
    demand: str, shares: Mapping[Subject, float], *, own_share: float, horizon_days: int
) -> Reading:
    """The demand with ``own_share``, the subjects' sentences with the rest, by ``shares``."""
    total = sum(shares.values())
    sentences = {demand: own_share} if own_share > 0 else {}
    for subject, share in shares.items():
        sentence = subject.sentence(horizon_days=horizon_days)
        sentences[sentence] = sentences.get(sentence, 0.0) + (1 - own_share) * share / total
    names = sorted(shares, key=lambda subject: -shares[subject])[:MAX_NAMED]
    spoken = ", ".join(dict.fromkeys(subject.spoken for subject in names))
    return Reading(tuple(sentences.items()), f"Read as: {spoken}.")


def named_in(answer: str, catalogue: Catalogue) -> list[Subject]:
    """The subjects that a language model's answer names, in its order; the rest is dropped.

    An answer is separated by commas, semicolons or lines; each part must be a name of the
    catalogue, give or take case and punctuation.
    """
    known = {s.words: s for s in reversed(catalogue.by_name.values())}
    parts = re.split(r"[,;\n]", answer[:_MAX_ANSWER])
    said = [plain(part) or part.strip() for part in parts]
    return list(dict.fromkeys(known[each] for each in said if each in known))[:MAX_SUBJECTS]
