"""What the suite may be told, and the world of one snapshot that its sections share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from encoders.transfer import Encoder
from feature_repo import durable
from feature_repo.errors import InputError
from feature_repo.sources import complete_journey
from ray_jobs.downstream import Fitting
from ray_jobs.evaluation.probe_table import others
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.spread import AtATime
from ray_jobs.evaluation.subject import Subject
from ray_jobs.one4all import logs
from ray_jobs.one4all.compare import World
from ray_jobs.one4all.tasks import Tasks
from ray_jobs.one4all.tuning import tunable

KIND = "shopper_bert"


class One4All(AtATime):
    """Settings of the suite one4all; the found suite leaves them alone."""

    kind: str | None = Field(None, description="embedding; default shopper_bert, else fused")
    vectors: str | None = Field(
        None, description="Parquet file with user_id and embedding, instead of the snapshot's own"
    )
    repeats: int = Field(3, ge=1, description="of each model and task; the paper's are 10")
    epochs: int = Field(12, ge=1, description="at most, of each downstream model")
    length: int = Field(logs.LENGTH, ge=1, description="latest events that a Transformer reads")
    precision: Literal["float32", "bfloat16"] = Field(
        "bfloat16", pattern="^(float32|bfloat16)$", description="of every downstream model"
    )
    tasks: str = Field("", description="names of tasks, by comma; default all")
    movielens: str | None = Field(None, description="recbole's wheel, or the folder ml-100k")


def check(subject: Subject) -> None:
    """Raise InputError for data that the tasks are not defined on."""
    if (source := subject.dataset.source) != complete_journey.NAME:
        raise InputError(
            f"suite: the tasks of one4all are defined on {complete_journey.NAME}, this is {source};"
            " --suite found measures a snapshot of any data that has a text tower"
        )


@dataclass(frozen=True)
class Bench:
    """A snapshot, the settings, and what is made of both once."""

    subject: Subject
    results: Results
    settings: One4All
    workers: int = 0  # of Ray Train, for what is pre-trained anew

    @property
    def kind(self) -> str:
        """The embedding under test."""
        kinds = self.subject.manifest.kinds
        kind: str = self.settings.kind or (KIND if KIND in kinds else "fused")
        if kind not in kinds:
            raise InputError(f"kind: expected one of {sorted(kinds)}, got {kind!r}")
        return kind

    @property
    def head(self) -> dict[str, Any]:
        """What a report says of itself besides the snapshot."""
        told = ("repeats", "length", "epochs", "precision")
        embedding = self.settings.vectors or self.kind
        left_out = {"left_out": self.tasks.left_out} if self.tasks.left_out else {}
        settings = {name: getattr(self.settings, name) for name in told}
        return {"embedding": embedding, **settings, **left_out}

    @cached_property
    def tasks(self) -> Tasks:
        """The tasks as of the snapshot's date."""
        return Tasks.of(self.subject, length=self.settings.length)

    @property
    def fitting(self) -> Fitting:
        """How every downstream model is trained."""
        return Fitting(epochs=self.settings.epochs, precision=self.settings.precision)

    @property
    def inputs(self) -> list[Any]:
        """What every result depends on besides the snapshot, JSON-able."""
        given = self.settings.vectors
        own = durable.sha256(Path(given)) if given else self.kind
        return [own, self.settings.repeats, self.settings.length, vars(self.fitting)]

    @cached_property
    def vectors(self) -> np.ndarray:
        """The embeddings, float32 [N, U], in the order of the snapshot's users."""
        if self.settings.vectors:
            return others(Path(self.settings.vectors), self.subject.users)
        return self.subject.vectors(self.kind)

    @cached_property
    def world(self) -> World:
        """What the models read."""
        subject, when = self.subject, self.subject.manifest.as_of
        purchases = logs.purchases(
            subject.con, when, subject.users, length=self.settings.length
        )  # fmt: skip
        subject.lines(purchases.texts)
        subject.lines.save()
        return World(subject.users, self.vectors, purchases, subject.lines, self._encoder())

    @property
    def tunable(self) -> bool:
        """Whether the embedding's own encoder is there, to be tuned further."""
        known = KIND in self.subject.manifest.checkpoints
        return known and self.kind == KIND and not self.settings.vectors

    def _encoder(self) -> Callable[[], Encoder] | None:
        if not self.tunable:
            return None
        subject = self.subject
        directory = subject.workspace.root / subject.manifest.checkpoints[KIND].path
        return tunable(
            directory, subject.con, subject.manifest.as_of, subject.users, subject.lines,
            length=self.settings.length,
        )  # fmt: skip

    def wanted(self, name: str) -> bool:
        """Whether a task is among those asked for."""
        chosen = [each.strip() for each in self.settings.tasks.split(",") if each.strip()]
        return not chosen or name in chosen
