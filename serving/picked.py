"""An audience as it was picked, with everything that it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sdk.types import TargetMeta
from serving.live import Opened
from serving.selecting import Selected

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Audience:
    """Users (Arrow strings [n]) and their scores [n] float32: best first, ties by user_id."""

    meta: TargetMeta
    ids: pa.Array
    scores: _Floats
    query: _Floats | None = None  # what they were ranked by; None where only rules chose

    @cached_property
    def user_ids(self) -> list[str]:
        """The ids as Python strings; slow to make for a million users."""
        found: list[str] = self.ids.to_pylist()
        return found


def answer(
    opened: Opened, kind: str, found: Selected, said: list[str], query: _Floats | None
) -> Audience:
    """Users picked from a snapshot, with everything that an audience says about itself."""
    manifest = opened.manifest
    synthetic = ["This snapshot was built from synthetic data."] if manifest.synthetic else []
    expected, low, high = found.buyers or (None, None, None)
    meta = TargetMeta(
        snapshot=manifest.id,
        space=manifest.space,
        as_of=manifest.as_of,
        horizon_days=manifest.horizon_days,
        engine=found.engine,
        population=manifest.entry(kind).count,
        eligible=found.eligible,
        expected_buyers=expected,
        expected_low=low,
        expected_high=high,
        notes=[*synthetic, *said, *found.notes],
    )
    ids = opened.matrices[kind].users.take(pa.array(found.rows))
    return Audience(meta, ids, found.scores, query)
