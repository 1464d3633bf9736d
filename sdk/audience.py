"""What the SDK returns: an ``Audience`` of scored users, or ``Embeddings`` of named users.

Both hold an Arrow table and say where it came from (space, snapshot, as_of). Tables and files that
leave them carry that on every row, so that rows of different snapshots can be told apart after they
have been put together. pandas and numpy are used only if asked for.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sdk.errors import UsageError
from sdk.types import EmbeddingsMeta, TargetMeta

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TIMESTAMP = pa.timestamp("us", tz="UTC")
_REPEATED_ROWS = 65_536


class Member(NamedTuple):
    """One user of an audience and how well the sentence fits."""

    user_id: str
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class Audience:
    """Users whom a sentence describes, best first, equal scores by user id.

    ``table`` has ``user_id`` (string) and ``score`` (float64). Iterating gives ``(user_id, score)``
    pairs; ``in`` asks for a user id.
    """

    text: str
    meta: TargetMeta
    table: pa.Table

    @cached_property
    def ids(self) -> list[str]:
        """User ids, best first."""
        return self.table["user_id"].to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def scores(self) -> list[float]:
        """Scores, aligned with ``ids``; comparable within one space only."""
        return self.table["score"].to_pylist()  # type: ignore[no-any-return]

    @property
    def space(self) -> str:
        """Embedding space the scores belong to."""
        return self.meta.space

    @property
    def snapshot(self) -> str:
        """Id of the snapshot that answered."""
        return self.meta.snapshot

    @property
    def as_of(self) -> datetime:
        """Only what was known strictly before this time (UTC) was used."""
        return self.meta.as_of

    @property
    def horizon_days(self) -> int:
        """Days after ``as_of`` that the sentence speaks about."""
        return self.meta.horizon_days

    @property
    def engine(self) -> str:
        """``milvus`` or ``scan``."""
        return self.meta.engine

    @property
    def population(self) -> int:
        """How many users there were to choose from."""
        return self.meta.population

    @property
    def notes(self) -> list[str]:
        """What the service wants the caller to know."""
        return self.meta.notes

    def to_arrow(self) -> pa.Table:
        """Columns ``user_id``, ``score``, ``space``, ``snapshot``, ``as_of``."""
        note = {b"openfound": self.meta.model_dump_json().encode(), b"text": self.text.encode()}
        return _stamped(self.table, self.meta).replace_schema_metadata(note)

    def to_pandas(self) -> pd.DataFrame:
        """The table of ``to_arrow`` as a data frame; raises ImportError without pandas."""
        return _to_pandas(self.to_arrow())

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write the table of ``to_arrow`` to a file, all or nothing; returns its path."""
        return write_parquet(self.to_arrow(), path)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[Member]:
        return map(Member, self.ids, self.scores)

    def __contains__(self, user_id: object) -> bool:
        return user_id in self._members

    @cached_property
    def _members(self) -> frozenset[str]:
        return frozenset(self.ids)

    def __repr__(self) -> str:
        lines = [f"Audience: {len(self):,} of {self.population:,} users for {self.text!r}"]
        if len(self):
            lines.append(f"  scores  {self.scores[0]:.4f} … {self.scores[-1]:.4f} ({self.engine})")
        lines.append(
            f"  as of   {self.as_of:%Y-%m-%d}, for the {self.horizon_days} days that follow"
        )
        lines.append(f"  from    snapshot {self.snapshot}, space {self.space}")
        lines.extend(f"  note    {note}" for note in self.notes)
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Vectors of the users that were found, in the order asked.

    ``table`` has ``user_id`` (string) and ``embedding`` (fixed-size list of float32); users that
    the snapshot does not know are in ``missing``.
    """

    meta: EmbeddingsMeta
    table: pa.Table

    @cached_property
    def ids(self) -> list[str]:
        """User ids found, in the order asked."""
        return self.table["user_id"].to_pylist()  # type: ignore[no-any-return]

    @cached_property
    def matrix(self) -> pa.FixedSizeListArray:
        """Vectors aligned with ``ids``: a fixed-size list array, ``dim`` float32 each."""
        return pa.concat_arrays(self.table["embedding"].chunks or [self._no_vectors()])

    @property
    def missing(self) -> list[str]:
        """Asked users that the snapshot does not know."""
        return self.meta.missing

    @property
    def kind(self) -> str:
        """Which embedding this is."""
        return self.meta.kind

    @property
    def dim(self) -> int:
        """Numbers per vector."""
        return self.meta.dim

    @property
    def space(self) -> str:
        """Embedding space; vectors of two spaces cannot be compared."""
        return self.meta.space

    @property
    def snapshot(self) -> str:
        """Id of the snapshot that answered."""
        return self.meta.snapshot

    @property
    def as_of(self) -> datetime:
        """Only what was known strictly before this time (UTC) was used."""
        return self.meta.as_of

    def to_arrow(self) -> pa.Table:
        """Columns ``user_id``, ``embedding``, ``space``, ``snapshot``, ``as_of``."""
        note = {b"openfound": self.meta.model_dump_json().encode()}
        return _stamped(self.table, self.meta).replace_schema_metadata(note)

    def to_numpy(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """Matrix [len, dim] of float32, aligned with ``ids``; raises ImportError without numpy."""
        try:
            import numpy  # noqa: F401
        except ImportError as error:
            raise ImportError("to_numpy needs numpy: `pip install numpy`.") from error
        flat: Any = self.matrix.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(self), self.dim)  # type: ignore[no-any-return]

    def to_pandas(self) -> pd.DataFrame:
        """The table of ``to_arrow`` as a data frame; raises ImportError without pandas."""
        return _to_pandas(self.to_arrow())

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write the table of ``to_arrow`` to a file, all or nothing; returns its path."""
        return write_parquet(self.to_arrow(), path)

    def _no_vectors(self) -> pa.Array:
        return pa.array([], type=self.table.schema.field("embedding").type)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __repr__(self) -> str:
        missing = f", {len(self.missing):,} missing" if self.missing else ""
        return (
            f"Embeddings: {len(self):,} users x {self.dim} ({self.kind}){missing}\n"
            f"  as of   {self.as_of:%Y-%m-%d}\n"
            f"  from    snapshot {self.snapshot}, space {self.space}"
        )


def check_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path that can be written, or a UsageError that says why not."""
    target = Path(path).expanduser().resolve()
    if not target.parent.is_dir():
        raise UsageError(
            f"path: there is no directory {target.parent}.", remedy="Create it, or name another."
        )
    # Replacing a device or a directory by a file would be a rude surprise.
    if target.exists() and not target.is_file():
        raise UsageError(f"path: {target} is not a file.", remedy="Name a file to be written.")
    return target


def write_parquet(table: pa.Table, path: str | os.PathLike[str]) -> Path:
    """Write a table beside its place and move it there, so that no reader sees half a file."""
    return _write(lambda file: pq.write_table(table, file, coerce_timestamps="us"), path)


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file's content, all or nothing."""
    return _write(lambda file: file.write(content), path)


def _write(write: Callable[[Any], object], path: str | os.PathLike[str]) -> Path:
    target = check_path(path)
    draft = target.with_name(f".{target.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except PermissionError as error:
        raise UsageError(
            f"path: {target} may not be written.", remedy="Name another place, or ask for access."
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def _stamped(table: pa.Table, meta: TargetMeta | EmbeddingsMeta) -> pa.Table:
    stamps = [
        ("space", pa.scalar(meta.space, pa.string())),
        ("snapshot", pa.scalar(meta.snapshot, pa.string())),
        ("as_of", pa.scalar(meta.as_of, TIMESTAMP)),
    ]
    for name, value in stamps:
        table = table.append_column(name, _repeated(value, table.num_rows))
    return table


def _repeated(value: pa.Scalar, rows: int) -> pa.ChunkedArray:
    # One chunk, referred to many times: a stamp on ten million rows costs no memory.
    chunk = pa.repeat(value, min(rows, _REPEATED_ROWS))
    whole, rest = divmod(rows, _REPEATED_ROWS)
    chunks = [chunk] * whole + ([chunk.slice(0, rest)] if rest else [])
    return pa.chunked_array(chunks, type=value.type)


def _to_pandas(table: pa.Table) -> pd.DataFrame:
    try:
        import pandas  # noqa: F401
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: `pip install pandas`.") from error
    return table.to_pandas()
