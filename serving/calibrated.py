"""What scores mean as probabilities, as the rest of the service needs it.

A snapshot may carry a calibration per kind; without one, nothing here is stated. It says for each
demand how probable it is that a user does what is asked within the horizon, or that it cannot say.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from feature_repo.errors import InputError

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Abstained(InputError):
    """The calibration has no ground for this demand; the message says why."""


class Calibrated(Protocol):
    """One demand, calibrated: ``probabilities`` [N] float64, row by row of the matrix."""

    @property
    def probabilities(self) -> npt.NDArray[np.float64]: ...

    def buyers(self, rows: Rows, /) -> tuple[float, float, float]:
        """How many of ``rows`` will do it: expected, and both ends of the 80 % interval."""


class Calibrator(Protocol):
    """Calibrates demands against the vectors of one kind."""

    def __call__(self, text: str | None, query: Floats, scores: Floats, /) -> Calibrated:
        """One demand: its sentence (None for a prompt), query [D], and scores [N] of all users.

        Raises :class:`Abstained`.
        """
