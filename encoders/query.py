"""A sentence → its query vector, as serving and evaluation ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from encoders.alignment import FoundModel
from encoders.checkpoint import CheckpointInfo, load

_REMEMBERED = 4_096


class QueryEncoder:
    """The text tower of one checkpoint. A user's score is the inner product with its vector.

    Sentences are encoded one by one, so that a score never depends on what else was asked, and
    the latest ones are remembered.
    """

    def __init__(self, model: FoundModel, info: CheckpointInfo):
        self.info, self.dim = info, model.dim
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


def _vector(model: FoundModel, text: str) -> np.ndarray:
    with torch.inference_mode():
        return model.encode_text([text])[0].float().numpy()
