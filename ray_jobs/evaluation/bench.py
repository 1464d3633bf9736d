"""What the suite FOUND may be told, and the snapshot that its sections share."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from feature_repo.errors import InputError
from feature_repo.sources import complete_journey
from ray_jobs import presets
from ray_jobs.evaluation import ablations, demands, planted
from ray_jobs.evaluation.ablations import Trainings, Variant
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.spread import AtATime
from ray_jobs.evaluation.subject import EARLIER, Subject
from ray_jobs.presets import Preset
from ray_jobs.protocol import FINAL_CUTOFF


class Found(AtATime):
    """Settings of the suite FOUND; the other suite leaves them alone."""

    peers: str | None = Field(None, description="directory of other systems' vectors as Parquet")
    splits: int = Field(5, ge=1, description="splits of each linear probe")
    preset: str = Field("best", description="of ablations, unseen categories and planted worlds")
    seeds: int = Field(
        3, ge=1, description="of unseen categories, planted worlds and the ablations' headline "
        "rows; others have one",
    )  # fmt: skip
    draws: int = Field(
        10, ge=1, description="of 5 + 5 seed users in each few-shot task; half as many of more"
    )
    users: int = Field(planted.USERS, ge=100, description="of each planted world")


def check(subject: Subject) -> None:
    """Raise InputError for a snapshot that no sentence can be asked of."""
    manifest = subject.manifest
    if "alignment" not in manifest.checkpoints:
        raise InputError(
            f"suite: found asks sentences, and snapshot {manifest.id} holds "
            f"{sorted(manifest.kinds)} without a text tower; evaluate it with --suite one4all"
        )


@dataclass(frozen=True)
class Bench:
    """A snapshot, the settings, and where models of the report's own are trained."""

    subject: Subject
    results: Results
    settings: Found
    workers: int = 0

    @cached_property
    def preset(self) -> Preset:
        """The recipe that variants depart from."""
        return presets.preset(self.settings.preset)

    @property
    def head(self) -> dict[str, Any]:
        """What a report says of itself besides the snapshot; what the data end too early for."""
        subject, days = self.subject, self.subject.manifest.horizon_days
        left_out = dict(subject.protocol.left_out)
        if not subject.protocol.reaches(days):
            left_out["reliability"] = days
        told = {"demographics": subject.dataset.demographics}
        return {**told, "left_out": left_out} if left_out else told

    @cached_property
    def written(self) -> dict[str, dict[str, list[str]]]:
        """The demands in other words, by wording."""
        return demands.read(self.subject.dataset.source)

    @property
    def peers(self) -> Path | None:
        """Where other systems' vectors are."""
        given = self.settings.peers
        return None if given is None else Path(given).resolve()

    @property
    def chosen_at(self) -> datetime:
        """The latest date at which anything may be chosen; other data have no final cut-off."""
        if self.subject.dataset.source != complete_journey.NAME:
            return self.subject.manifest.as_of
        latest = (FINAL_CUTOFF - EARLIER).replace(tzinfo=UTC)
        return min(self.subject.manifest.as_of, latest)

    def trainings(self, section: str, as_of: datetime) -> Trainings:
        """Where a section trains variants of the recipe on the snapshot's data."""
        dataset = self.subject.dataset
        return Trainings(
            ablations.place(self.results.out, section), dataset.source, dataset.demographics, as_of,
            self.preset, self.workers,
        )  # fmt: skip

    def rows(self, listed: tuple[Variant, ...]) -> list[tuple[Variant, int]]:
        """Variants that differ from the recipe on these data, each with its number of seeds."""
        chosen = ablations.applicable(listed, self.preset, set(self.subject.manifest.kinds))
        return [(one, self.settings.seeds if one.headline else 1) for one in chosen]
