"""What is trained, as command-line settings: a preset and the parts of it to leave out.

Shared by the verbs that train. Each switch is a field of :class:`ray_jobs.presets.Preset`, of its
behaviour encoder, or the language model of its text tower.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from encoders.alignment import MODALITIES
from encoders.language_model import MINILM, SMOLLM2
from ray_jobs import presets
from ray_jobs.command import Job


class Recipe(Job):
    """A preset, its alternatives and its ablations."""

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
    language_model: str | None = Field(
        None, description=f"of the text tower: {MINILM}, {SMOLLM2}, a directory, or any name in "
        "Hugging Face's local cache; default the preset's"
    )  # fmt: skip
    temporal: Literal["transformer", "gru"] | None = Field(
        None, description="what reads the windows of behaviour in order, g_μ of 4.2.1"
    )
    temperature: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="of the cosines by which behaviour is "
        "forecast (eq. 6, which has none: 1); the alignment's (eq. 15) stays the preset's"
    )  # fmt: skip
    learn_temperature: bool | None = Field(
        None, description="train the forecast's temperature, from --temperature on"
    )
    embeds: list[str] = Field(
        [], description=f"models that make the snapshot, of {','.join(presets.EMBEDS)}; default "
        "the preset's"
    )  # fmt: skip

    @property
    def chosen(self) -> presets.Preset:
        """The preset with the switches applied. Raises InputError, WeightsMissing."""
        preset = presets.preset(self.preset)
        if self.language_model is not None:
            preset = preset.reading(self.language_model)
        behaviour: dict[str, Any] = {
            "temporal": self.temporal, "temperature": self.temperature,
            "learn_temperature": self.learn_temperature,
        }  # fmt: skip
        given: dict[str, Any] = {
            "modalities": tuple(self.modalities), "objectives": tuple(self.objectives),
            "embeds": tuple(self.embeds), "fusion": self.fusion, "text_period": self.text_period,
        }  # fmt: skip
        return replace(
            preset, aggregates=self.aggregates and preset.aggregates,
            two_stage=self.two_stage and preset.two_stage,
            behaviour=replace(preset.behaviour, **_said(behaviour)), **_said(given),
        )  # fmt: skip


def _said(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value not in (None, ())}
