"""Products that no training sentence was ever about: can a sentence still find their buyers?

The categories of groups A and B are left out five at a time, from sentences and labels alike; what
was bought of them stays visible in the past, as with any new line of products. Each fold is trained
anew, at the snapshot's own date.

Three readings of a sentence: as the model answers it, where feedback of the past
(``encoders.feedback``) lets past purchases of the category speak in the query; by its words,
without that feedback; and by words read as categories that are known, as the service reads a
heading that its catalogue lacks.

All three rank the same users' vectors, which hold the category's past purchases too (habits), and
whitening is fitted with the sentences of all that is counted. So none of them stands for a category
that nobody has bought yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ray_jobs import metrics
from ray_jobs.evaluation.ablations import Trainings, Variant
from ray_jobs.evaluation.methods import as_others, sentence, without_feedback
from ray_jobs.evaluation.subject import Subject
from ray_jobs.evaluation.zero_shot import Scorer
from ray_jobs.protocol import CATEGORIES

HELD_OUT = 5
ANSWERED = "words and past purchases"
WORDS = "words, without feedback of the past"
AS_OTHERS = "words, read as known categories"
READINGS = (ANSWERED, WORDS, AS_OTHERS)


def folds(categories: Sequence[str] = CATEGORIES) -> Iterator[Variant]:
    """Each category is left out once."""
    for start in range(0, len(categories), HELD_OUT):
        held = tuple(categories[start : start + HELD_OUT])
        yield Variant(f"unseen {', '.join(held)}", {"unseen": held})


def measure(trainings: Trainings, fold: Variant, seed: int) -> dict[str, Any]:
    """Reading → figures of one fold's own categories, as :func:`scored` tells them."""
    made = trainings.subject(fold, seed)
    held = fold.changes["unseen"]
    ways = (sentence(made), without_feedback(made), as_others(made, held))
    return {name: scored(made, way, held) for name, way in zip(READINGS, ways, strict=True)}


def scored(subject: Subject, score: Scorer, held: tuple[str, ...]) -> dict[str, Any]:
    """Group → category → zero-shot figures, for the sentences about ``held``."""
    found: dict[str, Any] = {}
    for task in subject.tasks:
        if task.group in ("A", "B") and task.name in held:
            scores = score(task)
            found.setdefault(task.group, {})[task.name] = {
                "auc": metrics.auc(scores, task.labels),
                "precision_at_k": metrics.precision_at(scores, task.labels),
            }
    return found


def summary(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over all categories of a group, and each category's AUC."""
    groups: dict[str, Any] = {}
    for group in ("A", "B"):
        rows = {name: row for fold in measured for name, row in fold.get(group, {}).items()}
        if rows:
            groups[group] = {
                "tasks": len(rows),
                "auc": metrics.mean([row["auc"] for row in rows.values()]),
                "precision_at_k": metrics.mean([row["precision_at_k"] for row in rows.values()]),
                "categories": {name: row["auc"] for name, row in rows.items()},
            }
    return groups
