"""A sentence → its query vector, as serving and evaluation ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from encoders.alignment import FoundModel
from encoders.checkpoint import CheckpointInfo, load
from encoders.prompt import Floats, Prompt, tune

_REMEMBERED = 4_096


class QueryEncoder:
    """The text tower of one checkpoint. A user's score is the inner product with its vector.

    Sentences are encoded one by one, so that a score never depends on what else was asked, and
    the latest ones are remembered.
    """

    def __init__(self, model: FoundModel, info: CheckpointInfo):
        self.info, self.dim, self._model = info, model.dim, model
        self._encode_one = lru_cache(_REMEMBERED)(lambda text: _vector(model, text))

    @classmethod
    def open(cls, directory: Path) -> QueryEncoder:
        """The query encoder of an alignment checkpoint. Raises CheckpointError."""
        model, info = load(directory, expect="alignment")
        assert isinstance(model, FoundModel)
        return cls(model, info)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Query vectors, float32 [n, D]."""
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return np.stack([self._encode_one(text) for text in texts])

    def tune(
        self, text: str, positives_PD: Floats, negatives_ND: Floats, population_UD: Floats
    ) -> Prompt:
        """A sentence sharpened by seed users' vectors (FOUND 4.4.2)."""
        return tune(self._model, text, positives_PD, negatives_ND, population_UD)


def _vector(model: FoundModel, text: str) -> np.ndarray:
    with torch.inference_mode():
        return model.encode_text([text])[0].float().numpy()
