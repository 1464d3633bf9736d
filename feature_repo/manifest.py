"""The manifest of a snapshot, as models: what is checked when one is written or read.

A manifest binds what must move together (weights, feature definitions, embedding parts, matrices,
collections), so that no reader can pair the vectors of one build with the encoder of another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from feature_repo.errors import MissingKind, NotCarried, TimeError

ID_PATTERN: Final = re.compile(r"[a-z0-9_]+")
_PART: Final = "part-{:%Y-%m-%d}.parquet"


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError("expected a path relative to the workspace, without '..'")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
SnapshotId = Annotated[str, StringConstraints(pattern=rf"^{ID_PATTERN.pattern}$")]
Kind = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(:[A-Za-z0-9_-]+)?$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CheckpointEntry(_Model):
    """One set of weights: its path relative to the workspace if it lies inside, and its hash."""

    path: str
    sha256: str

    @classmethod
    def of(cls, directory: Path, sha256: str, *, root: Path) -> CheckpointEntry:
        """The entry of the weights in ``directory``; ``root`` is the workspace's."""
        inside = directory.is_relative_to(root)
        return cls(path=str(directory.relative_to(root) if inside else directory), sha256=sha256)


class KindEntry(_Model):
    """Everything that one kind of embedding consists of. Paths are relative to the workspace."""

    kind: Kind
    dim: int = Field(gt=0)
    count: int = Field(ge=0)
    cold: int = Field(0, ge=0)  # users of whom it knows nothing: vector 0, in no ranking
    parts: list[RelativePath]
    view: str
    collection: str
    matrix: RelativePath
    matrix_sha256: str


class FileEntry(_Model):
    """One file, its path relative to the workspace."""

    path: RelativePath
    sha256: str


class FactsEntry(_Model):
    """What hard rules are checked against (``facts.py`` says what lies in the files)."""

    profiles: FileEntry
    subjects: FileEntry
    behaviour: FileEntry


class Manifest(_Model):
    """What moves together. ``users`` lists the user ids in the row order of every matrix."""

    id: SnapshotId
    space: str
    as_of: AwareDatetime
    trained_as_of: AwareDatetime
    horizon_days: int = Field(gt=0)
    created_at: AwareDatetime
    feature_hash: str
    checkpoints: dict[str, CheckpointEntry]
    kinds: dict[Kind, KindEntry]
    num_users: int = Field(ge=0)
    users: RelativePath
    reports: list[str]
    built_by: str
    version: str
    source: str
    synthetic: bool
    facts: FactsEntry | None = None  # snapshots from before there were rules carry none
    features: RelativePath = "features"  # the weekly rows that were embedded, by view
    calibration: FileEntry | None = None  # none before there is an earlier cut-off to learn from

    @property
    def other_files(self) -> list[FileEntry]:
        """The facts and the calibration; none for an old snapshot."""
        facts = self.facts
        files = [] if facts is None else [facts.profiles, facts.subjects, facts.behaviour]
        return [*files, self.calibration] if self.calibration else files

    def entry(self, kind: str) -> KindEntry:
        """The entry of one kind, or :class:`MissingKind` naming those that exist."""
        if kind not in self.kinds:
            has = ", ".join(sorted(self.kinds)) or "none"
            raise MissingKind(f"kind: snapshot {self.id} has {has}, got {kind!r}")
        return self.kinds[kind]

    def checkpoint(self, model: str) -> CheckpointEntry:
        """The entry of one model's weights, or :class:`NotCarried` naming those that exist."""
        if model not in self.checkpoints:
            has = ", ".join(sorted(self.checkpoints)) or "none"
            raise NotCarried(
                f"snapshot: {self.id} holds the weights of {has}, this needs {model}; name another "
                f"--snapshot, or build one with --embeds {model}"
            )
        return self.checkpoints[model]


class Live(_Model):
    """Content of the file ``LIVE``."""

    snapshot: SnapshotId
    previous: list[SnapshotId] = []  # the most recent first
    activated_at: AwareDatetime


def view_name(kind: str, snapshot_id: str) -> str:
    """Name of the Feast view that holds one kind of one snapshot."""
    return f"{plain(kind)}_embedding__{snapshot_id}"


def collection_name(kind: str, snapshot_id: str) -> str:
    """Name of the Milvus collection that holds one kind of one snapshot."""
    return f"{plain(kind)}__{snapshot_id}"


def part_name(date: datetime) -> str:
    """File name of one date's embeddings; it sorts by date, which linking relies on."""
    return _PART.format(date)


def plain(kind: str) -> str:
    """A kind as a name valid in Feast, Milvus and files: ``segment:x`` becomes ``segment_x``."""
    return re.sub(r"[^A-Za-z0-9_]", "_", kind)


def check_space_dates(trained_as_of: datetime, dates: Iterable[datetime]) -> None:
    """Raise :class:`TimeError` if any date lies before the weights were trained.

    Weights trained up to a later day have seen the outcome, which no test on the data can notice.
    """
    early = sorted(date for date in dates if date < trained_as_of)
    if early:
        raise TimeError(
            f"dates: this space may be written or evaluated from its trained_as_of "
            f"{trained_as_of:%Y-%m-%d} on, got {early[0]:%Y-%m-%d}"
            f"{f' and {len(early) - 1} more' if len(early) > 1 else ''}; "
            f"train as of {early[0]:%Y-%m-%d} or earlier to embed these dates"
        )
