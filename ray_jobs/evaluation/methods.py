"""The methods that zero-shot targeting is compared with, each ready to score a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from encoders import checkpoint
from encoders.catalogue import Catalogue
from encoders.grounding import CatalogueRewriter
from encoders.query import QueryEncoder
from encoders.rewriting import Choice
from ray_jobs.evaluation import rules, supervised
from ray_jobs.evaluation.counts import Counts
from ray_jobs.evaluation.history import Receipts
from ray_jobs.evaluation.read_counts import ReadCounts
from ray_jobs.evaluation.subject import Subject
from ray_jobs.evaluation.text_match import TextMatch
from ray_jobs.evaluation.zero_shot import OURS, Method, Scorer
from ray_jobs.protocol import Task

READ = "sentence, read by the catalogue"
"""As the service answers by default."""


_COUNTS: dict[str, Callable[[Counts], Scorer]] = {
    "past 26-week count": lambda counts: counts.past,
    "recency-weighted count": lambda counts: counts.recent,
    "activity × recency-weighted": lambda counts: counts.active,
}


class _Once:
    """A scorer that is made when it is first asked: a reused result then costs nothing."""

    def __init__(self, make: Callable[[], Scorer]):
        self._make = make
        self._scorer: Scorer | None = None

    def __call__(self, task: Task) -> np.ndarray:
        if self._scorer is None:
            self._scorer = self._make()
        return self._scorer(task)


def methods(subject: Subject) -> dict[str, Method]:
    """All methods by name, ours first."""

    def text() -> Scorer:
        users = [str(user) for user in subject.protocol.everyone]
        return TextMatch(subject.con, subject.manifest.as_of, users, subject.lines).score

    def boosted() -> Scorer:
        return supervised.Supervised(
            subject.con, subject.manifest.as_of, Receipts(subject.con), subject.categories
        ).score

    def plain() -> Scorer:
        return rules.plain(subject.protocol, subject.lines).score

    def tuned() -> Scorer:
        return rules.fine_tuned(subject.protocol, subject.earlier, subject.lines).score

    def told(which: Callable[[Counts], Scorer]) -> Scorer:
        return _Once(lambda: which(Counts(subject.protocol)))

    def read(which: Callable[[Counts], Scorer]) -> Scorer:
        return _Once(lambda: _read_count(subject, which(Counts(subject.protocol))))

    listed = [
        Method(OURS, _Once(lambda: sentence(subject)), reads=True),
        Method(READ, _Once(lambda: sentence(subject, "catalogue")), reads=True),
        *(Method(name, told(which), reads=False, is_count=True) for name, which in _COUNTS.items()),
        *(Method(f"{name}, of what the catalogue reads", read(which), reads=True, is_count=True)
          for name, which in _COUNTS.items()),
        Method("rules, plain (ARALLM-style)", _Once(plain), reads=True),
        Method("rules, fine-tuned (ARALLM-style)", _Once(tuned), reads=True),
        Method("text matching, no alignment", _Once(text), reads=True),
        Method("chance", chance, reads=False),
        Method("LightGBM per task (reference)", _Once(boosted), reads=False),
    ]  # fmt: skip
    return {method.name: method for method in listed}


def sentence(subject: Subject, rewriter: Choice = "none") -> Scorer:
    """Ours: inner product of a user's fused vector with that of the sentence, as it is read."""
    return _ranking(subject, subject.query_encoder(rewriter))


def without_feedback(subject: Subject) -> Scorer:
    """Ours without feedback of the past in the query; the users' vectors stay as they are."""
    encoder = subject.query_encoder()
    encoder.model.feedback = None
    return _ranking(subject, encoder)


def as_others(subject: Subject, held: Sequence[str]) -> Scorer:
    """A sentence about subjects that the catalogue lacks, read as the subjects that it has.

    The users' vectors stay as they are: what was bought of the ``held`` subjects is in them.
    """
    encoder = subject.query_encoder()
    known = _catalogue(subject).without(held)
    days = encoder.info.horizon_days
    reader = CatalogueRewriter(known, subject.lines, subject.lines.once, horizon_days=days)
    return _ranking(subject, QueryEncoder(encoder.model, encoder.info, reader))


def _ranking(subject: Subject, encoder: QueryEncoder) -> Scorer:
    vectors = subject.vectors("fused")
    position = {user: row for row, user in enumerate(subject.users)}

    def score(task: Task) -> np.ndarray:
        query = encoder.understand(task.sentence or "").vector
        ranked: np.ndarray = vectors[[position[user] for user in task.users]] @ query
        return ranked

    return score


def _read_count(subject: Subject, count: Scorer) -> Scorer:
    encoder = subject.query_encoder("catalogue")
    catalogue = _catalogue(subject)
    everyone = subject.protocol.everyone
    nobody = Task("A", "", None, everyone, np.zeros(len(everyone), bool))
    days = encoder.info.horizon_days
    return ReadCounts(encoder.read, catalogue, count, nobody, horizon_days=days).score


def _catalogue(subject: Subject) -> Catalogue:
    directory = subject.workspace.root / subject.manifest.checkpoints["alignment"].path
    return checkpoint.read_catalogue(directory) or Catalogue(())


def chance(task: Task) -> np.ndarray:
    """Random numbers: what the instrument shows when nothing is known."""
    return np.random.default_rng(len(task.name)).random(len(task.users))
