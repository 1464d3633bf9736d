"""From scores to an audience: filters first, then exactly one cut.

Filters (rules, users who must or must not be in, other audiences) act before the cut, so an
audience is as large as asked for as long as there are eligible users. Sizes without filters, up to
Milvus' limit, go to Milvus; everything else is answered by the exact scan, which sees every user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from feature_repo.errors import InputError, NotCarried, VectorsUnavailable
from feature_repo.matrix import Matrix
from feature_repo.rules import parse
from feature_repo.vectors import MILVUS_LIMIT
from feature_repo.vocabulary import strange_values
from sdk.selection import Cut, Filters
from serving.calibrated import Abstained, Calibrated, Rows
from serving.live import Opened
from serving.nearest import Nearest

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Members = Callable[[str], Iterable[str]]
"""Id of a saved audience → its members; raises UnknownAudience."""


Calibrate = Callable[[Floats], Calibrated]
"""Scores [N] of one demand → their meaning; raises :class:`Abstained`."""


@dataclass(frozen=True)
class Eligible:
    """Who may be picked: rows ``allowed`` by the filters (None: all), and those ``forced`` in."""

    allowed: Mask | None
    forced: Rows
    count: int | None  # None without filters
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Selected:
    """Rows of the users picked, best first, ties by user_id, and their scores [n]."""

    engine: Literal["milvus", "scan"]
    rows: Rows
    scores: Floats
    eligible: int | None
    buyers: tuple[float, float, float] | None
    notes: list[str]


def eligible(opened: Opened, kind: str, filters: Filters, members: Members) -> Eligible:
    """The filters as rows of the snapshot; users of whom ``kind`` knows nothing are never eligible.

    Raises RuleError or NotCarried for rules, UnknownAudience for audiences.
    """
    include, exclude = filters.include or [], filters.exclude or []
    if not (filters.rules or include or exclude or filters.exclude_audiences):
        return Eligible(None, np.empty(0, np.int64), None)
    rules, notes = opened.rules, []
    warm = opened.matrices[kind].warm
    allowed = warm.copy()
    if filters.rules is not None:
        rule = parse(filters.rules.model_dump(exclude_none=True))
        allowed &= rules.allowed(rule, members)
        if opened.manifest.facts is not None:
            notes += strange_values(rule, rules.vocabulary)
    out = rules.of_users(exclude)
    for audience in filters.exclude_audiences or ():
        out |= rules.of_users(members(audience))
    forced = rules.of_users(include) & warm
    if (strangers := len(include) - int(forced.sum())) > 0:
        notes.append(f"Of {strangers:,} of the users to include this snapshot knows nothing.")
    if (forced & out).any():
        raise InputError(
            f"include: {int((forced & out).sum()):,} of these users are in an audience that is "
            "excluded; leave them out of one of the two"
        )
    allowed = (allowed & ~out) | forced
    return Eligible(allowed, np.flatnonzero(forced), int(allowed.sum()), notes)


def select(
    opened: Opened,
    kind: str,
    query: Floats | None,
    cut: Cut,
    among: Eligible,
    *,
    nearest: Nearest | None = None,
    calibrate: Calibrate | None = None,
) -> Selected:
    """Pick users by the inner product of ``query`` [D] with the vectors of ``kind``.

    Without a query nobody is preferred: every score is 0, and users stand in order of user_id.
    Milvus is asked only if ``nearest`` is given.
    """
    matrix = opened.matrices[kind]
    notes = [*among.notes]
    if nearest is not None and query is not None and _suits_milvus(cut, among):
        try:
            return _by_milvus(opened, kind, query, cut, nearest, notes, calibrate)
        except VectorsUnavailable:
            notes.append("Milvus is away: the exact scan answered instead, with equal results.")
    scores = _scores(matrix, query)
    calibrated = _calibrated(scores, cut, calibrate, notes)
    rows = _cut(matrix, scores, cut, among, calibrated)
    notes = [*_shortage(cut, among, len(rows), len(scores)), *notes]
    buyers = None if calibrated is None else calibrated.buyers(rows)
    return Selected("scan", rows, scores[rows], among.count, buyers, notes)


def _scores(matrix: Matrix, query: Floats | None) -> Floats:
    return np.zeros(len(matrix.users), np.float32) if query is None else matrix.scores(query)


def _suits_milvus(cut: Cut, among: Eligible) -> bool:
    return among.allowed is None and cut.size is not None and cut.size <= MILVUS_LIMIT


def _by_milvus(
    opened: Opened,
    kind: str,
    query: Floats,
    cut: Cut,
    nearest: Nearest,
    notes: list[str],
    calibrate: Calibrate | None,
) -> Selected:
    assert cut.size is not None
    matrix, places = opened.matrices[kind], opened.rows[kind]
    collection = opened.manifest.entry(kind).collection
    ids, scores = nearest.best(collection, matrix, places, query, cut.size)
    rows = places.of(ids)
    notes += _shortage(cut, Eligible(None, rows[:0], None), len(rows), len(matrix.users))
    buyers = None
    if calibrate is not None:
        calibrated = _calibrated(matrix.scores(query), cut, calibrate, notes)
        buyers = None if calibrated is None else calibrated.buyers(rows)
    return Selected("milvus", rows, scores, None, buyers, notes)


def _calibrated(
    scores: Floats, cut: Cut, calibrate: Calibrate | None, notes: list[str]
) -> Calibrated | None:
    """What the scores mean; needed by two cuts, for the others only worth a note."""
    named = next((n for n in ("min_probability", "expected_buyers") if getattr(cut, n)), None)
    if calibrate is None:
        if named is None:
            return None
        raise NotCarried(
            f"{named}: this snapshot carries no calibration, so its scores are no probabilities; "
            "choose by size, share or min_score, or calibrate and publish"
        )
    return calibrate(scores) if named is not None else calibrated_or_note(scores, calibrate, notes)


def calibrated_or_note(
    scores: Floats, calibrate: Calibrate | None, notes: list[str]
) -> Calibrated | None:
    """What the scores mean; None without a calibration, or with a note where it abstains."""
    if calibrate is None:
        return None
    try:
        return calibrate(scores)
    except Abstained as error:
        notes.append(f"No probability is stated: {error}.")
        return None


def _cut(
    matrix: Matrix, scores: Floats, cut: Cut, among: Eligible, calibrated: Calibrated | None
) -> Rows:
    free = among.allowed
    if len(among.forced):
        free = among.allowed.copy() if among.allowed is not None else None
        assert free is not None
        free[among.forced] = False
    if cut.min_score is not None:
        rows = matrix.best(scores, min_score=cut.min_score, allowed=free)
    elif cut.min_probability is not None:
        assert calibrated is not None
        likely = calibrated.probabilities >= cut.min_probability
        rows = matrix.best(scores, allowed=likely if free is None else likely & free)
    elif cut.expected_buyers is not None:
        assert calibrated is not None
        rows = matrix.best(scores, allowed=free)
        missing = cut.expected_buyers - float(calibrated.probabilities[among.forced].sum())
        found = np.cumsum(calibrated.probabilities[rows])
        rows = rows[: int(np.searchsorted(found, missing)) + 1 if missing > 0 else 0]
    else:
        rows = _best(matrix, scores, _size(cut, len(scores)), free, len(among.forced))
    if not len(among.forced):
        return rows
    picked = np.zeros(len(scores), dtype=bool)
    picked[rows], picked[among.forced] = True, True
    return matrix.best(scores, allowed=picked)


def _size(cut: Cut, population: int) -> int:
    if cut.share is not None:
        return max(1, math.ceil(round(cut.share * population, 6)))
    assert cut.size is not None
    return cut.size


def _best(matrix: Matrix, scores: Floats, size: int, free: Mask | None, forced: int) -> Rows:
    if forced > size:
        raise InputError(
            f"include: expected at most {size:,} users, the size of the audience, got {forced:,}"
        )
    return matrix.best(scores, size - forced, allowed=free) if size > forced else np.empty(0, int)


def _shortage(cut: Cut, among: Eligible, found: int, population: int) -> list[str]:
    wanted = None
    if cut.size is not None or cut.share is not None:
        wanted = _size(cut, population)
    if wanted is not None and found < wanted:
        if among.count is None:
            known = found if found < population else population  # cold users are never ranked
            return [f"There are only {known:,} users, so all of them are returned."]
        return [f"The filters leave only {among.count:,} users, so all of them are returned."]
    if cut.expected_buyers is not None and found == (among.count or population):
        return ["All eligible users together may not reach so many expected buyers."]
    return []
