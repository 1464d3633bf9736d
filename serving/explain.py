"""Why a user has a score: the live snapshot's own encoder, on the user's own weekly rows.

An :class:`Explainer` belongs to one opened snapshot. It reads rows that end at the snapshot's
``as_of`` or before, never later ones, and encodes the user as batch embedding did; if that does not
give the score that the user is ranked by, the rows have been rebuilt, and nothing is explained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from encoders import checkpoint
from encoders.catalogue import Catalogue
from encoders.explain import (
    AGGREGATES,
    TOLERANCE,
    Explanation,
    FutureSentences,
    Part,
    Tables,
    UserPast,
    decisive,
    explain,
    scored,
)
from encoders.past import BEHAVIOUR_VIEW, SEARCH_VIEW, VIEWS, PastEncoder, num_windows
from encoders.query import QueryEncoder
from feature_repo.errors import NotCarried
from feature_repo.manifest import Manifest
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.user_rows import user_rows
from sdk.explaining import Contribution, Explained, FutureSentence, PastEvent

MOST_EVENTS: Final = 128
"""Events told apart; of a user with more, those of the oldest weeks are joined by subject."""
_AMONG: Final = 12
_COMPARED: Final = 20_000  # users that sentences are compared over
_CLOSE: Final = 1e-3

Floats = npt.NDArray[np.float32]


class Explainer:
    """Explains scores of one snapshot; safe to share between threads.

    Args:
        encoder: of the snapshot's alignment checkpoint.
        matrix: the snapshot's fused vectors.
    """

    tolerance: Final = TOLERANCE

    def __init__(
        self, workspace: Workspace, manifest: Manifest, encoder: QueryEncoder, matrix: Matrix
    ) -> None:
        self._workspace, self._manifest = workspace, manifest
        self._encoder, self._matrix = encoder, matrix
        self._one = threading.Lock()  # one user at a time: others wait less than if they shared
        self.weeks = num_windows(encoder.model)

    def rows(self, users: Sequence[str]) -> Tables:
        """The weekly rows of users up to ``as_of``, by view. Raises NotCarried."""
        features = self._workspace.root / self._manifest.features
        return {
            view: user_rows(features, view, users, self._manifest.as_of, weeks=self.weeks)
            for view in VIEWS
            if view != SEARCH_VIEW or (features / SEARCH_VIEW).is_dir()
        }

    def __call__(
        self, tables: Tables, user: str, row: int, query: Floats, *, top: int
    ) -> Explained:
        """Why a user, whose vector stands in ``row``, has the score for ``query`` [D].

        Raises:
            NotCarried: the weekly rows are not those that the snapshot was embedded from.
        """
        own = {view: t.filter(pc.equal(t["user_id"], user)) for view, t in tables.items()}
        if not len(own[BEHAVIOUR_VIEW]):
            raise NotCarried(_rebuilt(self._manifest, f"hold no row of user {user!r}"))
        if len({len(table) for table in own.values()}) > 1:
            raise NotCarried(_rebuilt(self._manifest, "disagree on the windows between views"))
        with self._one:
            past = UserPast(own, self._parents, most=MOST_EVENTS)
            encode = partial(
                self._past, joint_only=not query[self._encoder.model.asked_dim :].any()
            )
            found = explain(past, query, encode)
            ranked_by = float(self._matrix.vectors[row] @ query)
            if abs(found.score - ranked_by) > _CLOSE * max(1.0, abs(ranked_by)):
                raise NotCarried(_rebuilt(
                    self._manifest, f"give user {user!r} the score {found.score:.4f}, not "
                    f"{ranked_by:.4f}"
                ))  # fmt: skip
            named = decisive(past, found, query, encode, num=top, among=_AMONG)
            without = float(scored(past, [frozenset(named)], query, encode)[0])
            sentences = self._sentences.nearest(self._matrix.vectors[row], num=top)
        return _told(user, found, past, named, without, sentences, top)

    @cached_property
    def _past(self) -> PastEncoder:
        return PastEncoder(self._encoder.model, self._workspace.cache)

    @cached_property
    def _catalogue(self) -> Catalogue:
        place = self._workspace.root / self._manifest.checkpoints["alignment"].path
        return checkpoint.read_catalogue(place) or Catalogue(())

    @cached_property
    def _parents(self) -> Mapping[str, str]:
        return {s.name: s.parent for s in self._catalogue.items if s.parent}

    @cached_property
    def _sentences(self) -> FutureSentences:
        subjects = [*self._catalogue.headings, *self._catalogue.outcomes]
        days = self._manifest.horizon_days
        texts = list(dict.fromkeys(s.sentence(horizon_days=days) for s in subjects))
        step = max(1, len(self._matrix.vectors) // _COMPARED)
        return FutureSentences(self._matrix.vectors[::step], self._encoder.encode(texts), texts)


ExplainerOf = Callable[
    [Workspace, Manifest, Mapping[str, Any], Mapping[str, Matrix]], Explainer | None
]


def explainer(
    workspace: Workspace, manifest: Manifest, encoders: Mapping[str, Any],
    matrices: Mapping[str, Matrix],
) -> Explainer | None:  # fmt: skip
    """The explainer of a snapshot; None if none of its kinds is asked with sentences."""
    encoder = encoders.get("fused")
    if not isinstance(encoder, QueryEncoder):
        return None
    return Explainer(workspace, manifest, encoder, matrices["fused"])


def _rebuilt(manifest: Manifest, what: str) -> str:
    return (
        f"the workspace's weekly rows as of {manifest.as_of:%Y-%m-%d} {what}: they are no longer "
        f"those that snapshot {manifest.id} was embedded from; embed and publish it again"
    )


def _told(
    user: str, found: Explanation, past: UserPast, named: Sequence[Part], without: float,
    sentences: Sequence[tuple[str, float]], top: int,
) -> Explained:  # fmt: skip
    worth = dict(found.contributions)
    ranked = found.contributions
    shown = ranked if len(ranked) <= 2 * top else (*ranked[:top], *ranked[-top:])
    events = [(part.week_end, part.name, part) for part in past.parts if part.week_end is not None]
    latest = sorted(events, reverse=True)[:top]
    return Explained(
        user_id=user,
        score=found.score,
        base=found.without,
        modalities=found.modalities(),
        contributions=[_contribution(part, each) for part, each in shown],
        rest=sum(each for _, each in ranked) - sum(each for _, each in shown),
        unexplained=found.unexplained,
        decisive=[_contribution(part, worth[part]) for part in named],
        score_without=without,
        latest=[
            PastEvent(words=part.words(), verb=part.verb, subject=name, week_end=week)
            for week, name, part in latest
        ],
        sentences=[FutureSentence(text=text, deviations=above) for text, above in sentences],
    )


def _contribution(part: Part, worth: float) -> Contribution:
    event = part.week_end is not None
    name = "aggregates" if part.name == AGGREGATES else part.name
    return Contribution(
        words=part.words(), modality=part.modality, name=name, verb=part.verb or None,
        week_end=part.week_end, weeks=len(part.earlier) + 1 if event else 0, contribution=worth,
    )  # fmt: skip
