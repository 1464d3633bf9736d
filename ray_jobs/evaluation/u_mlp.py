"""One4all's downstream network where a probe fits its regression (FOUND Table 4: U-MLP One4all).

Trained as every downstream model is (``ray_jobs.downstream``): the best of three rates, stopped
early. A third of the users it is given validates, as in each fold of the regression's own choice.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from sklearn.model_selection import StratifiedShuffleSplit

from encoders.transfer import Inputs, UMlp
from ray_jobs.downstream import Binary, Split, fit, predict

_VALID = 1 / 3


class UMlpProbe:
    """Fitted on scaled vectors [n, D] and labels, bool [n]; scores are logits."""

    def fit(self, x: np.ndarray, labels: np.ndarray) -> Self:
        """Train; at least three of each label are needed, so that one of each validates."""
        draw = StratifiedShuffleSplit(1, test_size=_VALID, random_state=0)
        train, valid = next(draw.split(x, labels))
        split = Split(train, valid, np.zeros(0, np.int64))
        width = x.shape[1]
        self._model = fit(
            Binary(labels), lambda out: UMlp(embedding_dim=width, out=out), _inputs(x), split
        ).model
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        """Logits, float32 [n]."""
        return predict(self._model, _inputs(x), np.arange(len(x)))[:, 0]


def _inputs(x: np.ndarray) -> Inputs:
    return Inputs(vectors_BU=torch.from_numpy(x.astype(np.float32)))
