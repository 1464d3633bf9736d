"""The calibration that a snapshot carries, as :mod:`serving.calibrated` asks for it.

A demand has ground if it says a heading of the catalogue by name: then its past is counted from the
snapshot's facts. Of any other (a mixture of meanings, overall behaviour, a tuned prompt) nothing
is stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from encoders import checkpoint
from encoders.calibration import Calibration, PastBuyers, Probabilities
from encoders.catalogue import Catalogue
from encoders.demand_subjects import Subjects
from encoders.grounding import without_generic
from feature_repo.errors import ManifestError
from feature_repo.manifest import Manifest
from feature_repo.past_buyers import past_buyers
from feature_repo.settings import Workspace
from serving.calibrated import Abstained, Calibrator, Floats, Rows

_VERBS: Final = {"purchase": "bought", "click": "clicked", "browsing": "browsed"}


@dataclass(frozen=True)
class Stated:
    """One demand, calibrated."""

    likely: Probabilities

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        return self.likely.p_N

    def buyers(self, rows: Rows, /) -> tuple[float, float, float]:
        return self.likely.buyers(rows)


@dataclass
class SnapshotCalibrator:
    """Calibrates demands against one snapshot's fused vectors."""

    workspace: Workspace
    manifest: Manifest
    calibration: Calibration
    catalogue: Catalogue
    _past: dict[str, PastBuyers | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._subjects = Subjects(tuple(self.catalogue.by_name.values()))

    def __call__(self, text: str | None, query: Floats, scores: Floats, /) -> Stated:
        name = None if text is None else self._subjects.named(without_generic(text))
        likely = self.calibration.probabilities(scores, None if name is None else self._of(name))
        if not likely.grounded:
            raise Abstained(likely.note)
        return Stated(likely)

    def _of(self, name: str) -> PastBuyers | None:
        if name not in self._past:
            verb = _VERBS[self.catalogue.by_name[name].kind]
            found = past_buyers(self.workspace, self.manifest, verb, name)
            self._past[name] = None if found is None else PastBuyers(
                self.manifest.num_users, float(found.windows[0]),
                float(np.mean(found.windows[1:])), float(found.windows[1]), float(found.again),
            )  # fmt: skip
        return self._past[name]


def calibrators(workspace: Workspace, manifest: Manifest) -> Mapping[str, Calibrator]:
    """What the snapshot carries, by kind; nothing for one that was built without.

    Raises:
        ManifestError: the file is damaged.
    """
    entry = manifest.calibration
    if entry is None:
        return {}
    path = workspace.root / entry.path
    try:
        calibration = Calibration.from_json(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path} cannot be read ({error}); restore it, or publish the snapshot again"
        ) from error
    place = workspace.root / manifest.checkpoints["alignment"].path
    catalogue = checkpoint.read_catalogue(place) or Catalogue(())
    return {"fused": SnapshotCalibrator(workspace, manifest, calibration, catalogue)}
