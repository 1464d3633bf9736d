"""The sections about seed users: what takes minutes, and prompt tokens, which take longer.

Each method on each trial is a part of its own. FOUND's own way, prompt tokens before the sentence,
takes most of a second a draw, so it is a section apart: the same seeds, shown in the same tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from encoders.prompt import ANCHORED, tune
from ray_jobs import visualise
from ray_jobs.evaluation import demands, zero_shot
from ray_jobs.evaluation.bench import Bench
from ray_jobs.evaluation.few_shot import (
    FEW,
    Ground,
    Trial,
    draw,
    has_seeds,
    measure,
    summary,
    trials,
)
from ray_jobs.evaluation.few_shot_methods import BY_TOKENS, OURS, QUICK, SENTENCE
from ray_jobs.evaluation.spread import Part

FIGURE = "few_shot.png"
GROUPS = ("A", "B")


def of_few_shot(bench: Bench) -> dict[str, Any]:
    """Seed users beside the sentence, by every method that trains no prompt tokens; Figure 3."""
    study = _Study(bench)
    if not study.trials:
        return {}
    return {"few_shot": {"trials": study.tables(QUICK), "map": study.map()}}


def of_prompt_tokens(bench: Bench) -> dict[str, Any]:
    """The same with prompt tokens (eq. 16) among the methods."""
    quick = of_few_shot(bench)
    return quick and {**quick, "prompt_tokens": {"trials": _Study(bench).tables(BY_TOKENS)}}


def few_shot_parts(bench: Bench) -> dict[str, Part]:
    """Every quick method on every trial."""
    return _Study(bench).parts(QUICK)


def token_parts(bench: Bench) -> dict[str, Part]:
    """Both ways of prompt tokens on every trial."""
    return _Study(bench).parts(BY_TOKENS)


@dataclass(frozen=True)
class _Study:
    """The trials of a bench, their results on disk, and the ground that they share."""

    bench: Bench

    @cached_property
    def ground(self) -> Ground:
        """Made when the first result is not there: reading the text tower takes seconds."""
        subject, results = self.bench.subject, self.bench.results
        return Ground(
            subject.query_encoder("catalogue"), subject.vectors("fused"), subject.users,
            [task for task in subject.tasks if task.group in GROUPS], self.written,
            results.of("base rates", [], lambda: zero_shot.base_rates(subject.earlier)),
        )  # fmt: skip

    @property
    def written(self) -> demands.Written:
        return self.bench.written["paraphrase"]

    @property
    def trials(self) -> list[Trial]:
        """None where no category can be asked for, or the data end before the horizon does."""
        subject = self.bench.subject
        if not subject.categories or set(GROUPS) <= set(subject.protocol.left_out):
            return []
        return trials(demands.WORDINGS if self.written else demands.WORDINGS[:1])

    def parts(self, names: Sequence[str]) -> dict[str, Part]:
        """What measures each of these methods on each trial."""
        return {f"{_heard(trial, name).name} {name}": self._part(trial, name)
                for trial in self.trials for name in names}  # fmt: skip

    def tables(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Each trial with the means of these methods, and what ours is ahead of them by."""
        return [
            {
                "wording": trial.wording, "seeds": trial.seeds, "hard": trial.hard,
                "draws": self._draws(trial),
                "methods": summary(
                    {name: self._part(trial, name)() for name in names},
                    self._part(trial, OURS)(),
                ),
            }
            for trial in self.trials
        ]  # fmt: skip

    def map(self) -> str:
        """Draw Figure 3 unless it is there; the sentence it is about."""
        path = self.bench.results.out / FIGURE

        def work() -> str:
            return seed_map(self.ground, path)

        sentence: str = self.bench.results.of("few-shot map", [], work)
        return sentence if path.exists() else work()

    def _part(self, trial: Trial, name: str) -> Part:
        trial, draws = _heard(trial, name), self._draws(trial)
        return lambda: self.bench.results.of(
            f"few-shot {trial.name} {name}", [demands.digest({"paraphrase": self.written}), draws],
            lambda: measure(self.ground, trial, name, draws),
        )  # fmt: skip

    def _draws(self, trial: Trial) -> int:
        return trial.num_draws(self.bench.settings.draws)


def _heard(trial: Trial, name: str) -> Trial:
    """Who reads no sentence says the same in any words, unless they choose the negatives."""
    reads = name in (SENTENCE, OURS, *BY_TOKENS)
    return trial if reads or trial.hard else replace(trial, wording=demands.WORDINGS[0])


def seed_map(ground: Ground, path: Path) -> str:
    """Figure 3 for the first task with enough users of either sort for the trials: who did it, hard
    negatives, and where the queries stand.

    Returns the sentence that seeds sharpened; "" where no task has so many.
    """
    number = next((n for n, task in enumerate(ground.tasks) if has_seeds(task, FEW)), None)
    if number is None:
        return ""
    task, users_ND = ground.tasks[number], ground.vectors_UD[ground.rows[number]]
    text, encoder = task.sentence or "", ground.encoder
    sentence_D = encoder.encode([text])[0]
    seeds = draw(task.labels, (0, 0), FEW, hard_scores=users_ND @ sentence_D)
    given = users_ND[seeds.positives], users_ND[seeds.negatives], ground.vectors_UD
    queries = {
        "sentence": sentence_D,
        "ours": encoder.tune(text, *given).query_D,
        BY_TOKENS[0]: tune(encoder.model, text, *given, ANCHORED).query_D,
    }
    visualise.query_map(
        users_ND, kinds(task.labels, seeds.negatives), queries, path,
        title=f"Few-shot targeting: {text}",
    )  # fmt: skip
    return text


def kinds(labels: np.ndarray, negatives: np.ndarray) -> list[str]:
    """What a user is on the map."""
    named = np.where(labels, "did it", "did not").astype(object)
    named[negatives] = "hard negative"
    return named.tolist()
