"""A snapshot's embeddings as one memory-mapped matrix, and the exact scan over it.

An index answers "the nearest hundred"; an audience is any size, above any score, within any filter.
That is one product over all rows, read block by block from the file. Beside the mapped file it
needs about 30 bytes per user, for their scores and the order of those that are chosen.

Users of whom a kind knows nothing are *cold*: their vector is 0. The manifest counts them, and no
ranking holds them: a score of 0 would place them before users whose taste is known to be another.

A score must depend on the vector alone, not on where it lies: users with equal vectors are tied,
and ties go by user_id. BLAS' matrix-vector product treats the rows at a block's edge with another
kernel, so equal rows come out one bit apart; ``np.vecdot`` treats every row alike. It is no slower:
1 M x 256 float32 in 40 ms on one thread here, the product in 60 to 150 ms.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo import durable
from feature_repo.errors import InputError, ManifestError
from feature_repo.manifest import Manifest
from feature_repo.settings import Workspace

Floats = npt.NDArray[np.float32]
_BLOCK_ROWS: Final = 8_192  # 8 MB at 256 dimensions
_LOW: Final = np.uint64(32)


class Matrix:
    """``vectors`` [N, dim] float32 and, row by row, ``users``: an Arrow array of N distinct ids.

    ``cold`` is how many of the rows are 0 because nothing is known of their users.
    """

    def __init__(self, vectors: Floats, users: pa.Array, cold: int = 0) -> None:
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) != len(users):
            raise InputError(
                f"vectors: expected float32 [{len(users)}, dim], one row per user, "
                f"got {vectors.dtype} {list(vectors.shape)}"
            )
        self.vectors = vectors
        self.users = users
        self.cold = cold

    @classmethod
    def open(cls, manifest: Manifest, kind: str, workspace: Workspace) -> Matrix:
        """Map one kind of a snapshot into memory. Raises MissingKind or ManifestError."""
        entry = manifest.entry(kind)
        path = workspace.root / entry.matrix
        remedy = "publish the snapshot again"
        try:
            vectors = np.load(path, mmap_mode="r")
            table = pq.read_table(workspace.root / manifest.users, columns=["user_id"])
        except (OSError, ValueError) as error:
            raise ManifestError(f"{path} cannot be read ({error}); {remedy}") from error
        if vectors.shape != (manifest.num_users, entry.dim) or vectors.dtype != np.float32:
            raise ManifestError(
                f"{path} holds {vectors.dtype} {list(vectors.shape)}, its manifest says "
                f"float32 {[manifest.num_users, entry.dim]}; {remedy}"
            )
        return cls(vectors, table["user_id"].combine_chunks(), entry.cold)

    @staticmethod
    def write(path: Path, matrix: npt.NDArray[np.floating]) -> None:
        """Write [N, dim] as float32 in one step. Every value must be finite."""
        if matrix.ndim != 2:
            raise InputError(f"matrix: expected [N, dim], got {list(matrix.shape)}")
        for start in range(0, len(matrix), _BLOCK_ROWS):
            bad = ~np.isfinite(matrix[start : start + _BLOCK_ROWS]).all(axis=1)
            if bad.any():
                raise InputError(
                    f"matrix: expected finite numbers, got NaN or infinity in row "
                    f"{start + int(bad.argmax())}; define a vector for users without data"
                )
        # A file object, because np.save would append .npy to a temporary name.
        with durable.replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, np.ascontiguousarray(matrix, dtype=np.float32))

    @cached_property
    def ids(self) -> list[str]:
        """The user ids in row order, as Python strings."""
        ids: list[str] = self.users.to_pylist()
        return ids

    @cached_property
    def warm(self) -> npt.NDArray[np.bool_]:
        """[N] which users may be ranked: all but the cold ones."""
        warm = np.ones(len(self.vectors), bool)
        for start in range(0, len(warm) if self.cold else 0, _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            warm[block] = self.vectors[block].any(axis=1)
        return warm

    def scores(self, query: npt.NDArray[np.floating]) -> Floats:
        """Inner product of ``query`` [dim] with every row: [N] float32."""
        dim = self.vectors.shape[1]
        query = np.asarray(query, dtype=np.float32)
        if query.shape != (dim,) or not np.isfinite(query).all():
            raise InputError(
                f"query: expected {dim} finite numbers, got shape {list(query.shape)}"
                f"{'' if np.isfinite(query).all() else ' with NaN or infinity'}"
            )
        scores = np.empty(len(self.vectors), dtype=np.float32)
        for start in range(0, len(scores), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            np.vecdot(self.vectors[block], query, out=scores[block])
        return scores

    @cached_property
    def places(self) -> npt.NDArray[np.uint32]:
        """Each row's place [N] if users were sorted by id: equal scores go by it."""
        ids = self.users.cast(pa.large_binary())
        if pc.all(pc.less(ids[:-1], ids[1:])).as_py() is not False:
            return np.arange(len(ids), dtype=np.uint32)
        places = np.empty(len(ids), dtype=np.uint32)
        places[pc.sort_indices(ids).to_numpy()] = np.arange(len(ids), dtype=np.uint32)
        return places

    def best(
        self,
        scores: Floats,
        k: int | None = None,
        *,
        min_score: float | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> npt.NDArray[np.int64]:
        """Rows of the best ``k`` users (None, or more than there are: all) by ``scores`` [N].

        Best first, ties by user_id; two users are tied when their float32 scores are equal.
        ``allowed`` [N] says which rows may appear at all, ``min_score`` which scores are enough;
        both act before ``k``, so an audience is as large as asked for if there are the users.
        Cold users never appear.
        """
        if k is not None and k < 1:
            raise InputError(f"k: expected at least 1, got {k}")
        if allowed is not None and (allowed.shape != (len(self.users),) or allowed.dtype != bool):
            raise InputError(
                f"allowed: expected bool [{len(self.users)}], "
                f"got {allowed.dtype} {list(allowed.shape)}"
            )
        rows = np.flatnonzero(self.warm if allowed is None else self.warm & allowed)
        if min_score is not None:
            rows = rows[scores[rows] >= min_score]
        if k is not None and k < len(rows):
            candidates = scores[rows]
            least = np.partition(candidates, len(rows) - k)[len(rows) - k]
            rows = rows[candidates >= least]  # with all that tie for the last place
        keys = (_descending(scores[rows]) << _LOW) | self.places[rows]
        return rows[np.argsort(keys)[:k]]

    def scan(
        self,
        query: npt.NDArray[np.floating],
        k: int | None = None,
        *,
        min_score: float | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[list[str], Floats]:
        """Score every user and return the best as :meth:`best` does: their ids and scores."""
        scores = self.scores(query)
        rows = self.best(scores, k, min_score=min_score, allowed=allowed)
        return self.users.take(pa.array(rows)).to_pylist(), scores[rows]


def _descending(scores: Floats) -> npt.NDArray[np.uint64]:
    """Numbers [n] whose ascending order is the descending order of ``scores``, equal for equal."""
    bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is 0.0
    negative = bits >> np.uint32(31) == 1
    return np.where(negative, bits, ~bits & np.uint32(0x7FFFFFFF)).astype(np.uint64)
