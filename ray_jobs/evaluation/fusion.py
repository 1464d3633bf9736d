"""Is a fused vector more than its parts, and what does alignment do to it? (FOUND Tables 4 and 5)

The paper claims that fusion by attention beats concatenation and every single modality. The
faithful recipe is trained with more and more steps of alignment, at the temperature of eq. 15
(none, that is 1) and at a small one that is learnt, on the report's data and on a **synthetic**
world; every kind of vectors then goes under the same linear probe. Beside the AUC stands the number
of directions that the vectors spread over, which says what a probe has left to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np

from encoders.alignment import MODALITIES
from feature_repo.sources import default_as_of
from feature_repo.transforms import micros
from ray_jobs import presets
from ray_jobs.evaluation.ablations import Trainings, Variant, place
from ray_jobs.evaluation.bench import Bench
from ray_jobs.evaluation.probe_table import concatenation, modalities, search_text
from ray_jobs.evaluation.subject import Subject
from ray_jobs.metrics import mean
from ray_jobs.presets import Preset
from ray_jobs.probes import probe
from ray_jobs.protocol import Task

FAITHFUL = ("laptop", "paper")
CONCATENATION = "concatenation"
SEARCH_TEXT = "language model on search text"
RIVALS = (*MODALITIES, CONCATENATION)
"""Kinds of vectors that the paper claims the fused one to be ahead of."""
DAYS = 28
_LONGER = 4  # times the preset's own steps
_SMALL = 0.07  # the temperature that CLIP starts from
_SUBJECTS = 20
_OFTEN = 0.5
_FEW = 60  # positives below which a probe has nothing to learn from


@dataclass(frozen=True)
class Row:
    """One training: how many steps of alignment, at which temperature, from which start."""

    steps: int
    temperature: float = 1.0
    start: str = "even"

    @property
    def name(self) -> str:
        """As the report calls it."""
        learnt = f", temperature from {self.temperature:g}" if self.temperature != 1.0 else ""
        return f"{self.steps} steps{learnt}" + (", random start" if self.start == "random" else "")

    def of(self, preset: Preset) -> Variant:
        """What it changes in the faithful recipe."""
        aligned = replace(preset.stages["alignment"], steps=self.steps)
        small = {"temperature": self.temperature, "learn_temperature": True}
        return Variant(f"fusion, {self.name}", {
            "stages": {**preset.stages, "alignment": aligned}, "fusion_start": self.start,
            **(small if self.temperature != 1.0 else {}),
        })  # fmt: skip


def rows(preset: Preset) -> tuple[Row, ...]:
    """No alignment, the preset's, and four times as much; the last two at either temperature."""
    own = preset.stages["alignment"].steps
    random = tuple(Row(steps, start="random") for steps in (0, own))
    trained = tuple(Row(own * times, at) for at in (1.0, _SMALL) for times in (1, _LONGER))
    return (*random, Row(0), *trained)


def faithful(preset: Preset) -> Preset:
    """The recipe that the paper's claim is about: the chosen one, if it keeps to the letter."""
    return preset if preset.name in FAITHFUL else presets.laptop()


def worlds(bench: Bench) -> dict[str, Trainings]:
    """The report's own data at a date where things may be chosen, and a synthetic world."""
    here = replace(bench.trainings("fusion", bench.chosen_at), preset=faithful(bench.preset))
    spec = f"synthetic:users={bench.settings.users},seed=0"
    made_up = replace(
        here, workspace=place(bench.results.out, "fusion-synthetic"), source=spec,
        demographics=True, as_of=default_as_of(spec),
    )  # fmt: skip
    return {here.source: here, spec: made_up}


def measure(made: Subject, splits: int) -> dict[str, Any]:
    """Kind of vectors → mean AUC over groups of tasks, and over how many directions they spread."""
    asked = _tasks(made)
    found = {}
    for kind, vectors in kinds(made).items():
        groups = probe(vectors, made.users, asked, splits=splits)
        found[kind] = {"auc": mean([row["auc"] for row in groups.values()]),
                       "directions": directions(vectors)}  # fmt: skip
    return found


def kinds(made: Subject) -> dict[str, np.ndarray]:
    """The fused vectors, every modality's, their concatenation, and the untuned language model's.

    The last is of what users searched for, where they did: another method, which nothing trains.
    """
    found = {kind: made.vectors(kind) for kind in ("fused", *modalities(made))}
    found[CONCATENATION] = concatenation(made)
    searched = search_text(made)
    return found if searched is None else {**found, SEARCH_TEXT: searched}


def _tasks(made: Subject) -> list[Task]:
    if made.dataset.source == "complete-journey":
        return made.tasks
    return bought_next(made.con, made.manifest.as_of, made.users)


def directions(vectors: np.ndarray) -> float:
    """Over how many directions [N, D] spread: 1 … D, by the shares of their variance.

    The participation ratio, (Σ λ)² / Σ λ², of the eigenvalues of the covariance; nan without any.
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2
    total = float((variances**2).sum())
    return float(variances.sum() ** 2 / total) if total else float("nan")


def bought_next(
    con: duckdb.DuckDBPyConnection, as_of: datetime, users: Sequence[str], days: int = DAYS
) -> list[Task]:
    """What users do in the days after a date, on any data.

    To buy something of a subject, for the twenty most bought subjects of the two coarsest levels
    that less than half of the users buy, and to come back at all.
    """
    start, end = micros(as_of), micros(as_of + timedelta(days=days))
    bought: dict[str, set[str]] = {}
    for user, subject in con.sql(
        """SELECT user_id, subject FROM (
               SELECT user_id, unnest(categories[:2]) AS subject FROM known_events JOIN items
               USING (item_id) WHERE source = 'bill'
                 AND epoch_us(timestamp) >= $start AND epoch_us(timestamp) < $end)
        GROUP BY ALL""",
        params={"start": start, "end": end},
    ).fetchall():
        bought.setdefault(subject, set()).add(user)
    everyone = np.array(users, object)
    labels = {name: np.array([user in takers for user in users]) for name, takers in bought.items()}
    fit = {n: y for n, y in labels.items() if _FEW <= y.sum() < _OFTEN * len(users)}
    chosen = sorted(fit, key=lambda name: (-fit[name].sum(), name))[:_SUBJECTS]
    tasks = [Task("A", name, None, everyone, fit[name]) for name in chosen]
    back = np.any(list(labels.values()), 0) if labels else np.zeros(len(users), bool)
    if _FEW <= back.sum() <= len(users) - _FEW:
        tasks.append(Task("A", "comes back", None, everyone, back))
    return tasks
