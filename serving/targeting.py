"""The product, composed: one sentence → the users it describes; user ids → their embeddings.

No HTTP and no Ray here. The collaborators are passed in:

    live = LiveSnapshot(SnapshotStore(workspace), Opener(workspace))
    targeting = Targeting(live, Nearest(connect))
    audience = targeting.target(TargetRequest(text="households that will buy diapers", size=500))

Sizes up to Milvus' limit go to Milvus, in the collection that the manifest names; larger ones, and
``exact`` ones, to the scan. When Milvus is away the scan answers, and a note says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from encoders.query import Query
from feature_repo.errors import (
    ManifestError,
    OpenFoundError,
    UnknownAudience,
)
from feature_repo.manifest import Manifest
from sdk.planning import Plan, PlanRequest
from sdk.reaching import LookalikeRequest, Reach, ReachRequest
from sdk.types import (
    Activation,
    EmbeddingsMeta,
    EmbeddingsRequest,
    Health,
    Prompt,
    PromptRequest,
    SnapshotInfo,
    SnapshotsResponse,
    TargetRequest,
)
from serving.live import LiveSnapshot, Opened, check_aligned
from serving.lookalike import lookalike_query_of, without_seeds
from serving.nearest import Nearest
from serving.picked import Audience, answer
from serving.planning import plan_of, split
from serving.prompts import Prompts
from serving.reach import reach
from serving.selecting import (
    Calibrate,
    Members,
    calibrated_or_note,
    eligible,
    select,
)

_UNRANKED: Final = "No sentence was given: nobody is preferred, users stand in order of user_id."
_Floats = npt.NDArray[np.float32]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embeddings:
    """The users that were found, in the order asked for, and their vectors [n, dim] float32."""

    meta: EmbeddingsMeta
    user_ids: list[str]
    vectors: _Floats


def _no_audiences(audience: str) -> Iterable[str]:
    raise UnknownAudience(f"audience: no audience is saved here, got {audience[:80]!r}")


class Targeting:
    """Answers from the live snapshot; safe to share between threads.

    Args:
        live: opens what LIVE names.
        nearest: Milvus, or None: then the scan answers everything, without a note.
        activate, rollback: change LIVE and what derives from it
            (:func:`feature_repo.publishing.activate` with workspace and address filled in).
        members: looks saved audiences up, for rules and exclusions that name one.
    """

    def __init__(
        self,
        live: LiveSnapshot,
        nearest: Nearest | None,
        *,
        activate: Callable[[str], object] | None = None,
        rollback: Callable[[], object] | None = None,
        members: Members = _no_audiences,
    ) -> None:
        self.live = live
        self._nearest, self.members = nearest, members
        self._activate = activate or live.store.activate
        self._rollback = rollback or live.store.rollback
        self._prompts = Prompts(live.store.workspace)
        self._one_change = threading.Lock()

    # --- asking

    def target(
        self,
        request: TargetRequest,
        *,
        opened: Opened | None = None,
        vector: _Floats | None = None,
    ) -> Audience:
        """Pick the users whom a sentence, or a tuned prompt, describes best.

        Args:
            opened: the snapshot to ask; the live one if left out.
            vector: the query [D] of an earlier run in the same space, instead of reading anew.

        Raises:
            NoLiveSnapshot, ManifestError, CannotOpen, SpaceMismatch: nothing can answer.
            UnknownPrompt: there is no such prompt. SpaceMismatch: it is of another space.
            MissingKind: the snapshot holds no such kind.
            NoSentences: it does, but sentences are not aligned with it.
            RuleError, NotCarried: the rules, or the cut, ask for what the snapshot does not know.
        """
        opened = opened or self.live.get()
        check_aligned(opened.manifest, request.kind)
        request, halves = self.halved(request, opened)
        if vector is None or request.text is None and request.prompt is None:
            query = self.query_of(opened, request)
        else:
            query = Query(vector)
        among = eligible(opened, request.kind, request, self.members)
        nearest = None if request.exact else self._nearest
        calibrate = _calibrate(opened, request, query)
        vector = None if query is None else query.vector
        found = select(
            opened, request.kind, vector, request, among,
            nearest=nearest, calibrate=calibrate,
        )  # fmt: skip
        said = [_UNRANKED] if query is None else list(query.notes)
        return answer(opened, request.kind, found, [*halves, *said], vector)

    def halved(
        self, request: TargetRequest, opened: Opened | None = None
    ) -> tuple[TargetRequest, list[str]]:
        """The request with the hard rules that its sentence holds, and notes that tell them."""
        return split((opened or self.live.get()).reader, request)

    def plan(self, request: PlanRequest) -> Plan:
        """How a sentence is understood: its hard rules, its soft rest, and what was not read."""
        opened = self.live.get()
        check_aligned(opened.manifest, request.kind)
        return plan_of(opened.reader, request.text)

    def lookalike(
        self,
        request: LookalikeRequest,
        *,
        opened: Opened | None = None,
        vector: _Floats | None = None,
    ) -> Audience:
        """Pick the users most like the seeds; too few seeds fall back on the sentence, if any.

        Arguments as in :meth:`target`, whose errors it raises, and InputError for too few seeds
        without a sentence.
        """
        opened, kind = opened or self.live.get(), request.kind
        check_aligned(opened.manifest, kind)
        query = lookalike_query_of(opened, request) if vector is None else Query(vector)
        among = eligible(opened, kind, without_seeds(request), self.members)
        found = select(opened, kind, query.vector, request, among)
        return answer(opened, kind, found, list(query.notes), query.vector)

    def query_of(self, opened: Opened, request: TargetRequest | ReachRequest) -> Query | None:
        """The query of a sentence as it is read, of a prompt as it was tuned; None of rules."""
        if request.prompt is None:
            if request.text is None:
                return None
            return opened.encoders[request.kind].understand(request.text, rewrite=request.rewrite)
        return self._prompts.query(opened, request)

    def reach(self, request: ReachRequest) -> Reach:
        """How many users a demand fits how well. Raises what :meth:`target` raises."""
        opened, kind = self.live.get(), request.kind
        check_aligned(opened.manifest, kind)
        query = self.query_of(opened, request)
        assert query is not None  # ReachRequest sees to it
        among = eligible(opened, request.kind, request, self.members)
        scores = opened.matrices[kind].scores(query.vector)
        notes = list(query.notes)
        calibrate = _calibrate(opened, request, query)
        calibrated = calibrated_or_note(scores, calibrate, notes)
        return reach(
            opened.manifest, opened.matrices[kind], scores, among, calibrated,
            bins=request.bins, notes=notes,
        )  # fmt: skip

    def embeddings(self, request: EmbeddingsRequest) -> Embeddings:
        """Stored embeddings, from the feature store's online half; unknown users are missing."""
        opened = self.live.get()
        manifest = opened.manifest
        entry = manifest.entry(request.kind)
        found, vectors = opened.features.online_embeddings(manifest, request.kind, request.user_ids)
        known = set(found)
        meta = EmbeddingsMeta(
            snapshot=manifest.id,
            space=manifest.space,
            as_of=manifest.as_of,
            kind=request.kind,
            dim=entry.dim,
            missing=[user for user in request.user_ids if user not in known],
        )
        return Embeddings(meta, found, vectors)

    def tune(self, request: PromptRequest) -> Prompt:
        """Sharpen a sentence with seed users of the live snapshot, and keep it under an id.

        Raises what :meth:`target` raises, InputError for users who are not in the snapshot, and
        TuningBusy or TuningTooLong where tokens are to be learnt.
        """
        opened = self.live.get()
        check_aligned(opened.manifest, request.kind)
        return self._prompts.tune(opened, request)

    def health(self) -> Health:
        """Which snapshot answers; raises whatever keeps one from it."""
        return Health(status="ok", snapshot=self.live.get().manifest.id)

    # --- snapshots

    def snapshots(self) -> SnapshotsResponse:
        """All snapshots, newest first; what cannot be read is named under ``problems``."""
        store = self.live.store
        problems = [f"{name}: {problem}" for name, problem in store.damaged().items()]
        answering, named = self._answering(), self._live_id()
        if self.live.problem is not None:
            instead = f"{answering} still answers" if answering else "nothing answers"
            problems.append(f"LIVE: {self.live.problem} ({instead})")
        infos = [_info(manifest) for manifest in store.list()]
        return SnapshotsResponse(live=named, snapshots=infos, problems=problems)

    def activate(self, snapshot_id: str) -> Activation:
        """Make a snapshot live; one that cannot be opened is refused, and nothing changes."""
        with self._one_change:
            prepared = self.live.open(snapshot_id)
            previous = self._live_id()
            self._activate(snapshot_id)
            self.live.refresh(prepared)
            return Activation(live=snapshot_id, previous=previous)

    def rollback(self) -> Activation:
        """Make the snapshot live that was live before."""
        with self._one_change:
            previous = self._live_id()
            self._rollback()
            self.live.refresh()
            return Activation(live=self.live.store.live().id, previous=previous)

    # --- inside

    def _answering(self) -> str | None:
        try:
            return self.live.get().manifest.id
        except OpenFoundError:
            return None

    def _live_id(self) -> str | None:
        try:
            return self.live.store.live_id()
        except ManifestError:  # a damaged LIVE, which an activation replaces
            return None


def _calibrate(
    opened: Opened, request: TargetRequest | ReachRequest, query: Query | None
) -> Calibrate | None:
    calibrator = opened.calibrators.get(request.kind)
    if calibrator is None or query is None:
        return None
    return lambda scores: calibrator(request.text, query.vector, scores)


def _info(manifest: Manifest) -> SnapshotInfo:
    return SnapshotInfo(
        id=manifest.id,
        space=manifest.space,
        as_of=manifest.as_of,
        trained_as_of=manifest.trained_as_of,
        created_at=manifest.created_at,
        kinds=sorted(manifest.kinds),
        num_users=manifest.num_users,
        report=manifest.reports[0] if manifest.reports else None,
    )
