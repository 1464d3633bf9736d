"""The nearest users by Milvus, in the order and with the scores of the exact scan.

Milvus adds up its inner products in another order than the scan does, which moves a score by its
last bit and can swap two users. What it finds is therefore scored again from the matrix: a few
hundred rows, and both engines agree to the bit. It is asked for more than are wanted, until those
it leaves out are further behind the last place than the two engines ever differ. What it cannot
know is checked here too: a collection that is short of rows, or holds users that the snapshot does
not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.errors import VectorsUnavailable
from feature_repo.matrix import Matrix
from feature_repo.vectors import MILVUS_LIMIT

RETRY_SECONDS: Final = 5.0
_SPARE: Final = 8  # asked for beyond k at first: Lite takes .15 ms for each

Floats = npt.NDArray[np.float32]
log = logging.getLogger(__name__)


class Searcher(Protocol):
    """What is used of :class:`feature_repo.vectors.Vectors`."""

    def search(self, collection: str, query: Floats, k: int, /) -> tuple[list[str], Floats]: ...


class Rows:
    """Finds users' rows in a matrix, by binary search in their sorted ids.

    A dict would do the same with ten times the memory.
    """

    def __init__(self, matrix: Matrix) -> None:
        ids = matrix.users.cast(pa.binary())
        self._order = pc.sort_indices(ids).to_numpy()
        self._sorted = np.array(ids.take(pa.array(self._order)).to_pylist(), dtype=np.bytes_)

    def of(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """Row numbers [n], -1 for an id that is not there."""
        wanted = np.array([user.encode() for user in ids], dtype=np.bytes_)
        if not len(self._sorted):
            return np.full(len(wanted), -1)
        place = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        found: npt.NDArray[np.int64] = np.where(
            self._sorted[place] == wanted, self._order[place].astype(np.int64), -1
        )
        return found


class Nearest:
    """Asks Milvus while it answers. Once it did not, it is left alone for a few seconds.

    ``connect`` makes a :class:`Vectors`; it may find another address than the last time.
    """

    def __init__(
        self, connect: Callable[[], Searcher], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect = connect
        self._clock = clock
        self._connecting, self._noticing = threading.Lock(), threading.Lock()
        self._client: Searcher | None = None
        self._retry_at = float("-inf")

    def best(
        self, collection: str, matrix: Matrix, rows: Rows, query: Floats, k: int
    ) -> tuple[list[str], Floats]:
        """The ``k`` best users of ``matrix``, all that are not cold if there are fewer.

        Best first, ties by user_id.

        Raises :class:`VectorsUnavailable` at once if Milvus was away a moment ago.
        """
        most = min(len(matrix.users) - matrix.cold, MILVUS_LIMIT)
        if not most:
            return [], np.empty(0, np.float32)
        client = self._reached()
        limit = min(k + _SPARE, most)
        while True:
            try:
                ids, found = client.search(collection, query, limit)
                at = rows.of(ids)
                if len(ids) < limit or (at < 0).any():
                    raise VectorsUnavailable(
                        f"the collection {collection} is not what was published"
                    )
            except Exception as error:  # gRPC's own errors too: the scan can stand in for all of it
                self._lost(client, error)
                raise VectorsUnavailable(str(error)) from error
            scores: Floats = np.vecdot(matrix.vectors[at], query)
            apart = 2 * np.abs(scores - found).max()
            if limit == most or found[k - 1] - found[-1] > apart:
                break
            limit = min(2 * limit, most)
        order = np.lexsort((np.array(ids, dtype=str), -scores))[:k]
        return [ids[place] for place in order], scores[order]

    def _reached(self) -> Searcher:
        if (client := self._client) is not None:
            return client
        # A connection to a Milvus that hangs takes half a minute: one request at most waits for it.
        if self._clock() < self._retry_at or not self._connecting.acquire(blocking=False):
            raise VectorsUnavailable("Milvus did not answer a moment ago")
        try:
            if self._client is None:
                self._client = self._connect()
            return self._client
        except Exception as error:
            self._retry_at = self._clock() + RETRY_SECONDS
            log.warning("the exact scan stands in for Milvus: %s", error)
            raise VectorsUnavailable(str(error)) from error
        finally:
            self._connecting.release()

    def _lost(self, client: Searcher, error: Exception) -> None:
        with self._noticing:
            if self._client is client:  # else another request has noticed already
                self._client = None
                self._retry_at = self._clock() + RETRY_SECONDS
                log.warning("the exact scan stands in for Milvus: %s", error)
