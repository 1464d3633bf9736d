"""A sentence → its query vector, as serving and evaluation ask for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch

from encoders import checkpoint
from encoders.alignment import FoundModel
from encoders.catalogue import Subject
from encoders.checkpoint import CheckpointInfo
from encoders.grounding import CatalogueRewriter
from encoders.posterior import reading_posterior
from encoders.prompt import PAPER, Floats, Method, Prompt, tune
from encoders.rewriting import Reading, Rewriter, as_it_stands

_REMEMBERED = 4_096

MakeRewriter = Callable[[Path], Rewriter | None]
"""Alignment checkpoint → the rewriter for its sentences, or None where it cannot be had."""


@dataclass(frozen=True)
class Query:
    """What is asked of the vectors, and what the asker should know about it."""

    vector: np.ndarray  # float32 [D]
    notes: tuple[str, ...] = ()


class QueryEncoder:
    """The text tower of one checkpoint. A user's score is the inner product with its vector.

    Sentences are encoded one by one, so that a score never depends on what else was asked, and
    the latest ones are remembered.

    Args:
        rewriter: reads demands before they are encoded; without one they are taken as they stand.
    """

    def __init__(self, model: FoundModel, info: CheckpointInfo, rewriter: Rewriter | None = None):
        self.info, self.dim, self.model = info, model.dim, model
        self._rewriter = rewriter
        self._encode_one = lru_cache(_REMEMBERED)(lambda text: _vector(model, text))
        if rewriter is not None:
            self.encode(rewriter.vocabulary())  # remembered: nobody has to wait for them later

    @classmethod
    def open(cls, directory: Path, make_rewriter: MakeRewriter | None = None) -> QueryEncoder:
        """The query encoder of an alignment checkpoint. Raises CheckpointError."""
        model, info = checkpoint.load(directory, expect="alignment")
        assert isinstance(model, FoundModel)
        return cls(model, info, make_rewriter(directory) if make_rewriter else None)

    @property
    def scale(self) -> float:
        """What an inner product is multiplied by to be of the size of log-odds."""
        return self.model.scale

    def base_rates(self, texts: Sequence[str]) -> np.ndarray | None:
        """The model's own log-odds of a user who scores 0, float32 [n]; None if it learnt none."""
        if getattr(self.model, "base_rate", None) is None:
            return None
        with torch.inference_mode():
            read = [self.model.text.read(self.model.text.tokenize([text])) for text in texts]
            base_n = self.model.base_rate(torch.cat(read)).squeeze(-1)
            return np.asarray(base_n + self.scale * self.model.level(texts))

    @property
    def nearest(self) -> Callable[[str], tuple[Subject, float] | None] | None:
        """Words → the heading that they mean; None where no catalogue reads demands."""
        return self._rewriter.nearest if isinstance(self._rewriter, CatalogueRewriter) else None

    @cached_property
    def words(self) -> frozenset[str]:
        """What the tower's tokenizer has in one piece: words that are spelt as they are meant."""
        return frozenset(word.lstrip("Ġ▁") for word in self.model.text.tokenizer.get_vocab())

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Query vectors of sentences as they stand, float32 [n, D]."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([self._encode_one(text) for text in texts])

    def understand(self, text: str, *, rewrite: bool = True) -> Query:
        """The query of a demand: of the sentences it is read as, or of itself."""
        reading = self.read(text) if rewrite else as_it_stands(text)
        return Query(self.mixed(reading), (reading.note,) if reading.note else ())

    def read(self, text: str) -> Reading:
        """What a demand is read as; itself, where nothing reads demands."""
        return as_it_stands(text) if self._rewriter is None else self._rewriter.read(text)

    def mixed(self, reading: Reading) -> np.ndarray:
        """The weighted sum of a reading's sentences, float32 [D]."""
        sentences, shares = zip(*reading.sentences, strict=True)
        return np.asarray(np.array(shares, np.float32) @ self.encode(sentences))

    def tune(
        self, text: str, positives_PD: Floats, negatives_ND: Floats, population_UD: Floats, *,
        method: Method = "posterior", each_step: Callable[[], None] | None = None,
    ) -> Prompt:  # fmt: skip
        """A demand sharpened by seed users' vectors (FOUND 4.4.2).

        Args:
            method: ``posterior`` starts from the demand as it is read; ``tokens`` learns them
                before the demand as it stands, as the paper does (``encoders.prompt.PAPER``).
            each_step: called before each step of learning; what it raises ends it.
        """
        given = self.model, text, positives_PD, negatives_ND, population_UD
        if method == "tokens":
            return tune(*given, PAPER, each_step=each_step)
        start_D = self.mixed(self.settled(self.read(text), positives_PD, negatives_ND))
        return tune(*given, start_D=start_D)

    def settled(self, reading: Reading, positives_PD: Floats, negatives_ND: Floats) -> Reading:
        """A reading whose shares lean to the sentences that tell seed users apart."""
        sentences, shares = zip(*reading.sentences, strict=True)
        queries_DR = self.scale * self.encode(sentences).T
        found_R = reading_posterior(
            np.array(shares), positives_PD @ queries_DR, negatives_ND @ queries_DR
        )
        return replace(reading, sentences=tuple(zip(sentences, found_R.tolist(), strict=True)))


def _vector(model: FoundModel, text: str) -> np.ndarray:
    with torch.inference_mode():
        return model.encode_text([text])[0].float().numpy()
