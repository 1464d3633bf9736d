"""Which snapshot answers: opened once, held as one immutable object, swapped when LIVE changes.

A request takes the object and keeps it to its end, so a sentence is never compared with vectors
of another build. Every request looks at LIVE with one ``stat``. If it has changed, the new
snapshot is opened in the background while the old one answers; if it cannot be opened, the old one
goes on, :attr:`LiveSnapshot.problem` says why, and it is tried again every few seconds.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from encoders.checkpoint import CheckpointError, fingerprint
from encoders.language_model import WeightsMissing
from encoders.prompt import Method, Prompt
from encoders.query import Query, QueryEncoder
from feature_repo.errors import (
    InputError,
    ManifestError,
    NoLiveSnapshot,
    OpenFoundError,
    SpaceMismatch,
)
from feature_repo.manifest import CheckpointEntry, Manifest
from feature_repo.matrix import Matrix
from feature_repo.rule_filter import RuleFilter
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.store import FeatureStore
from serving.calibrated import Calibrator
from serving.explain import Explainer, ExplainerOf, explainer
from serving.nearest import Rows
from serving.planning import Reader, demand_reader

TOWERS: Final = {"fused": "alignment"}
"""The kinds that sentences are aligned with → the checkpoint that holds their text tower."""
WITHOUT_TOWER = frozenset({"behaviour", "tabular", "search", "shopper_bert"})
"""Kinds that no sentence is ever aligned with, whether or not the snapshot has them."""
RETRY_SECONDS: Final = 5.0
_SHOWN: Final = 400
_FIRST_SENTENCE: Final = "households that will buy milk"

_Vectors = npt.NDArray[np.floating[Any]]
log = logging.getLogger(__name__)


class Encoder(Protocol):
    """A text tower: sentences → query vectors, float32 [n, dim]; with seed users, one prompt."""

    def encode(self, texts: Sequence[str], /) -> npt.NDArray[np.float32]: ...

    def understand(self, text: str, /, *, rewrite: bool) -> Query: ...

    def tune(
        self, text: str, positives: _Vectors, negatives: _Vectors, population: _Vectors, /, *,
        method: Method = "posterior", each_step: Callable[[], None] | None = None,
    ) -> Prompt: ...  # fmt: skip


class Features(Protocol):
    """The online half of the feature store."""

    def online_embeddings(
        self, manifest: Manifest, kind: str, user_ids: Sequence[str], /
    ) -> tuple[list[str], npt.NDArray[np.float32]]: ...


class CannotOpen(OpenFoundError):
    """A snapshot's checkpoint or language model is missing or damaged."""


class NoSentences(InputError):
    """A kind was asked with a sentence, but sentences are not aligned with it."""


@dataclass(frozen=True)
class Opened:
    """All that answers for one snapshot; the mappings are by kind."""

    manifest: Manifest
    encoders: Mapping[str, Encoder]
    matrices: Mapping[str, Matrix]
    rows: Mapping[str, Rows]
    features: Features
    rules: RuleFilter
    calibrators: Mapping[str, Calibrator]  # empty if the snapshot carries no calibration
    reader: Reader | None = None  # splits demands into rules and text
    explainer: Explainer | None = None  # says what carried a score


ReaderOf = Callable[[Workspace, Manifest, RuleFilter, Mapping[str, Encoder]], Reader | None]


def _uncalibrated(workspace: Workspace, manifest: Manifest) -> Mapping[str, Calibrator]:
    return {}


@dataclass(frozen=True)
class Opener:
    """Opens snapshots of a workspace; what does the reading is passed in by tests."""

    workspace: Workspace
    encoder: Callable[[Path], Encoder] = QueryEncoder.open
    features: Callable[[Workspace], Features] = FeatureStore
    calibrators: Callable[[Workspace, Manifest], Mapping[str, Calibrator]] = _uncalibrated
    reader: ReaderOf = demand_reader
    explainer: ExplainerOf = explainer

    def __call__(self, manifest: Manifest, before: Opened | None = None) -> Opened:
        """Open a snapshot; an encoder of the one ``before`` with the same weights is kept.

        Raises:
            SpaceMismatch: the weights on disk are not those the vectors were computed with.
            ManifestError, CannotOpen: something that the manifest names is missing or damaged.
        """
        kinds = [kind for kind in TOWERS if kind in manifest.kinds]
        matrices = {kind: Matrix.open(manifest, kind, self.workspace) for kind in kinds}
        encoders = {kind: self._tower(manifest, TOWERS[kind], before) for kind in kinds}
        for kind, encoder in encoders.items():
            _check_width(manifest, kind, encoder)
        # A store of its own: Feast caches its registry, which may predate this snapshot.
        rows = {kind: Rows(matrix) for kind, matrix in matrices.items()}
        users = next(iter(matrices.values())).users if matrices else pa.array([], pa.string())
        rules = RuleFilter.open(manifest, users, self.workspace)
        return Opened(
            manifest, encoders, matrices, rows, self.features(self.workspace), rules,
            self.calibrators(self.workspace, manifest),
            self.reader(self.workspace, manifest, rules, encoders),
            self.explainer(self.workspace, manifest, encoders, matrices),
        )  # fmt: skip

    def _tower(self, manifest: Manifest, name: str, before: Opened | None) -> Encoder:
        entry = manifest.checkpoints.get(name)
        if entry is None:
            raise ManifestError(
                f"snapshot {manifest.id} names no checkpoint {name!r}, so no sentence can be "
                f"compared with its vectors; publish it again"
            )
        for kind, kept in before.encoders.items() if before else ():
            if before and before.manifest.checkpoints.get(TOWERS[kind]) == entry:
                return kept
        return self._open_tower(manifest, entry)

    def _open_tower(self, manifest: Manifest, entry: CheckpointEntry) -> Encoder:
        directory = self.workspace.root / entry.path
        try:
            found = fingerprint(directory)
            if found != entry.sha256:
                raise SpaceMismatch(
                    f"{directory} has the hash {found[:12]}…, but snapshot {manifest.id} was "
                    f"computed with {entry.sha256[:12]}…: its sentences and vectors would not "
                    f"belong to one space; restore the checkpoint, or publish again"
                )
            return self.encoder(directory)
        except (OSError, CheckpointError, WeightsMissing) as error:
            reason = shorten(str(error), _SHOWN)  # a misfit lists every weight by name
            raise CannotOpen(f"snapshot {manifest.id} cannot be opened: {reason}") from error


class LiveSnapshot:
    """The opened live snapshot; safe to share between threads."""

    def __init__(
        self,
        store: SnapshotStore,
        opener: Callable[[Manifest, Opened | None], Opened],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self._opener = opener
        self._clock = clock
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self._seen: object = None  # the mark of LIVE that `_opened` or `_error` belongs to
        self._error: OpenFoundError | None = None
        self._retry_at = 0.0

    @property
    def problem(self) -> str | None:
        """Why the snapshot that LIVE names does not answer, or None if it does."""
        return None if self._error is None else str(self._error)

    def get(self) -> Opened:
        """The snapshot that answers now.

        Raises NoLiveSnapshot; and if none was ever opened, what kept this one from being opened.
        """
        mark = _mark(self.store.workspace.live_file)
        if mark is None:
            return self._none()
        if self._is_due(mark):
            if self._opened is None and self._error is None:
                self.refresh()  # the first time there is nothing else to answer with
            elif self._lock.acquire(blocking=False):  # else somebody is at it already
                threading.Thread(target=self._refresh_and_release, daemon=True).start()
        if self._opened is None:
            error = self._error or NoLiveSnapshot("the live snapshot is being opened; ask again")
            raise error.with_traceback(None)  # the same object each time: traces would pile up
        return self._opened

    def refresh(self, prepared: Opened | None = None) -> None:
        """Let what LIVE names answer, opening it unless it is open or ``prepared``.

        Sets ``problem`` if that fails.
        """
        with self._lock:
            self._refresh(prepared)

    def open(self, snapshot_id: str) -> Opened:
        """Open a snapshot that is not live (yet), without letting it answer."""
        return self._opener(self.store.load(snapshot_id), self._opened)

    def _refresh_and_release(self) -> None:
        try:
            self._refresh()
        finally:
            self._lock.release()

    def _refresh(self, prepared: Opened | None = None) -> None:
        """Under the lock."""
        # Taken first: if LIVE changes while we read, the mark is old and the next request sees it.
        mark = _mark(self.store.workspace.live_file)
        if not self._is_due(mark):
            return
        before = self._opened  # held to the end: closing its files takes time
        try:
            manifest = self.store.live()
            if prepared is not None and prepared.manifest == manifest:
                self._opened = prepared
            elif before is None or before.manifest != manifest:
                self._opened = self._opener(manifest, before)
                log.info("snapshot %s answers", manifest.id)
            self._error = None
        except OpenFoundError as error:
            if str(error) != self.problem:  # told once, not at every try
                log.error("the live snapshot cannot be opened: %s", error)
            self._error = error
        except Exception as error:
            # Whatever it is, the old snapshot goes on, and the log has the trace.
            self._error = CannotOpen(f"the live snapshot cannot be opened ({type(error).__name__})")
            log.exception("the live snapshot cannot be opened")
        self._retry_at = self._clock() + RETRY_SECONDS
        self._seen = mark

    def _is_due(self, mark: object) -> bool:
        """Whether LIVE has changed since it was read, or a failure is old enough to try again."""
        failed = self._error is not None and self._clock() >= self._retry_at
        return mark != self._seen or failed

    def _none(self) -> Opened:
        """LIVE is the truth: without it nothing is live, whatever was open."""
        self.store.live()  # raises NoLiveSnapshot, which says what to run
        return self.get()  # it has just appeared


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Tells one content of a file that is only ever replaced from another."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def check_aligned(manifest: Manifest, kind: str) -> None:
    """Raise MissingKind or NoSentences for a kind that no sentence can be asked of."""
    if kind in TOWERS:
        manifest.entry(kind)  # raises MissingKind
        return
    if kind not in WITHOUT_TOWER:
        manifest.entry(kind)
    aligned = ", ".join(kind for kind in TOWERS if kind in manifest.kinds) or "none"
    raise NoSentences(
        f"kind: expected one that sentences are aligned with ({aligned}), got {kind!r}; "
        f"its embeddings can be fetched, not asked with a sentence"
    )


def _check_width(manifest: Manifest, kind: str, encoder: Encoder) -> None:
    """Also the tower's first sentence, which is slow and should be nobody's."""
    width: Any = encoder.encode([_FIRST_SENTENCE]).shape
    if width != (1, manifest.entry(kind).dim):
        raise SpaceMismatch(
            f"the text tower of snapshot {manifest.id} gives vectors of shape {list(width)}, its "
            f"{kind} embeddings have {manifest.entry(kind).dim} numbers; publish it again"
        )
