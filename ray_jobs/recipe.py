"""What is trained, as command-line settings: a preset and the parts of it to leave out.

Shared by the verbs that train. Each switch is a field of :class:`ray_jobs.presets.Preset`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from encoders.alignment import MODALITIES
from ray_jobs import presets
from ray_jobs.command import Job


class Recipe(Job):
    """A preset and its ablations."""

    preset: str = Field("best", description="|".join(presets.PRESETS))
    aggregates: bool = Field(
        True, description="--no-aggregates leaves out hand-made counts of the past: their profile "
        "columns, habits, and with these feedback and outlook; the assortment stays"
    )  # fmt: skip
    modalities: list[str] = Field([], description=f"which of {','.join(MODALITIES)}; default all")
    objectives: list[str] = Field(
        [], description=f"which of {','.join(presets.OBJECTIVES)} pre-train; default all"
    )
    two_stage: bool = Field(True, description="--no-two-stage aligns without pre-training")
    fusion: Literal["attention", "concatenation"] | None = None
    text_period: Literal["future", "same"] | None = Field(
        None, description="what sentences tell: the horizon after the cut-off, or the one before"
    )

    embeds: list[str] = Field(
        [], description=f"models that make the snapshot, of {','.join(presets.EMBEDS)}; default "
        "the preset's"
    )  # fmt: skip

    @property
    def chosen(self) -> presets.Preset:
        """The preset with the switches applied. Raises InputError."""
        preset = presets.preset(self.preset)
        given: dict[str, Any] = {
            "modalities": tuple(self.modalities), "objectives": tuple(self.objectives),
            "embeds": tuple(self.embeds), "fusion": self.fusion, "text_period": self.text_period,
        }  # fmt: skip
        return replace(
            preset, aggregates=self.aggregates and preset.aggregates,
            two_stage=self.two_stage and preset.two_stage,
            **{name: value for name, value in given.items() if value},
        )  # fmt: skip
