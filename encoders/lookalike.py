"""A few users → a query for those like them, without a sentence: Fisher's linear discriminant.

The direction that best tells the seeds from everybody, if both spread alike, is the population's
inverse covariance times the difference of the means. The covariance is tempered (``power``), since
few seeds say little about directions in which users hardly differ: the fewer, the more
(docs/log.md has the curve).

Shapes: U users of the population, S seeds, D width of the joint space.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from encoders.posterior import Population

Floats = npt.NDArray[np.floating]
FEWEST: Final = 10
"""With fewer seeds their mean is mostly chance."""
MANY: Final = 50
POWER: Final = 0.25
POWER_OF_MANY: Final = 0.5


def lookalike_query(
    seeds_SD: Floats, population_UD: Floats, *, power: float | None = None
) -> npt.NDArray[np.float32]:
    """The query of users like the seeds, of length 1. [D]

    Args:
        power: of the inverse covariance; 0 is the nearest centroid, 1 Fisher's discriminant.
            Default by the number of seeds (:func:`power_of`).
    """
    if seeds_SD.ndim != 2 or len(seeds_SD) < 1 or seeds_SD.shape[1] != population_UD.shape[1]:
        raise ValueError(
            f"seeds: expected [S, {population_UD.shape[1]}] with S at least 1, "
            f"got {list(seeds_SD.shape)}"
        )
    power = power_of(len(seeds_SD)) if power is None else power
    return likeness(seeds_SD, Population.of(population_UD, power=power))


def power_of(seeds: int) -> float:
    """The power that ranks best with so many seeds."""
    return POWER if seeds < MANY else POWER_OF_MANY


def likeness(seeds_SD: Floats, population: Population) -> npt.NDArray[np.float32]:
    """The same against a population whose moments are known."""
    difference_D = np.asarray(seeds_SD, np.float64).mean(0) - population.mean_D
    query = population.root_DD @ (population.root_DD.T @ difference_D)
    return (query / max(float(np.linalg.norm(query)), 1e-12)).astype(np.float32)
