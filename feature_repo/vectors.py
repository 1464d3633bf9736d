"""Milvus collections: one per embedding and snapshot, searched for the nearest users.

The only importer of pymilvus. Vectors are compared by inner product with a FLAT index, which is
exact: measured against the scan of ``matrix.py`` it returns the same users with the same scores to
1e-5. Lite's search cost is linear in the rows whatever the index, so an approximate one gains
nothing there; on a Milvus cluster of many millions an HNSW index is the one line to change.

Whatever Milvus refuses or fails at comes out as :class:`VectorsUnavailable`: the scan can stand in
for all of it. What the caller got wrong is an :class:`InputError`, raised before Milvus is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from feature_repo.errors import InputError, VectorsUnavailable
from feature_repo.milvus_server import answers, milvus

__all__ = ["MILVUS_LIMIT", "Vectors", "VectorsUnavailable", "filterable", "milvus"]

MILVUS_LIMIT: Final = 16_384
"""Most users one search can return. Lite would return more, a Milvus server refuses."""

Floats = npt.NDArray[np.float32]
Names = list[str]  # inside Vectors, ``list`` is its own method

_BATCH_ROWS: Final = 4_000
_MAX_TEXT: Final = 512  # bytes of a VARCHAR
_SECONDS: Final = 30.0  # for one call; without a limit pymilvus tries 75 times
_SPARE: Final = 8  # hits beyond k, which settle ties for the last place; Lite takes .15 ms each
_TYPES: Final[dict[pa.DataType, tuple[DataType, dict[str, int]]]] = {
    pa.string(): (DataType.VARCHAR, {"max_length": _MAX_TEXT}),
    pa.int64(): (DataType.INT64, {}),
    pa.float64(): (DataType.DOUBLE, {}),
    pa.bool_(): (DataType.BOOL, {}),
}
_OURS: Final = ("user_id", "embedding", "space", "as_of")


class Vectors:
    """The collections of one Milvus. Cheap to construct; not to be shared between processes."""

    def __init__(self, uri: str, token: str | None = None) -> None:
        # A client is made without complaint even if nothing answers any more.
        if not answers(uri):
            raise VectorsUnavailable(f"nothing answers at {uri}; start Milvus, or ask for the scan")
        # It logs every error with its traceback, also those that are caught here and reported.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
        self.uri = uri
        self._loaded: set[str] = set()
        with _translated(uri):
            self._client = MilvusClient(
                uri, token=token or "", timeout=_SECONDS, grpc_options=_options(uri)
            )

    def create(
        self,
        collection: str,
        ids: Sequence[str],
        matrix: Floats,
        *,
        space: str,
        as_of: datetime,
        metadata: pa.Table | None = None,
    ) -> None:
        """Fill a collection anew with one row per id; an earlier one of that name is dropped.

        ``matrix`` is [N, dim] float32 in the order of ``ids``; ``metadata`` may have a user_id
        column in the same order, its other columns (text, int64, double, bool) become filters.
        ``space`` and ``as_of`` (seconds since 1970) are columns too.
        """
        columns = _metadata_columns(metadata, ids)
        _check_rows(ids, matrix)
        stamp = {"space": space, "as_of": int(as_of.timestamp())}
        with _translated(self.uri):
            self._forget(collection)
            self._define(collection, matrix.shape[1], columns)
            for start in range(0, len(ids), _BATCH_ROWS):
                batch = columns.slice(start, _BATCH_ROWS).to_pylist()
                rows = [
                    {**row, "embedding": vector, **stamp}
                    for row, vector in zip(batch, matrix[start:], strict=False)
                ]
                self._client.insert(collection, rows, timeout=_SECONDS)
            # Unflushed rows are searched one by one in Python: 14 times slower.
            self._client.flush(collection, timeout=_SECONDS)
            self._load(collection)

    def count(self, collection: str) -> int:
        """Number of rows; 0 if there is no such collection."""
        with _translated(self.uri):
            if not self._client.has_collection(collection, timeout=_SECONDS):
                return 0
            self._load(collection)
            answer = self._client.query(
                collection, filter="", output_fields=["count(*)"], timeout=_SECONDS
            )
            return int(answer[0]["count(*)"])

    def search(self, collection: str, query: npt.ArrayLike, k: int) -> tuple[Names, Floats]:
        """The ``k`` best users by inner product with ``query`` [dim], and their scores.

        Best first, ties by user_id, also for the last place. ``k`` is at most ``MILVUS_LIMIT``.
        """
        vector = np.asarray(query, dtype=np.float32)
        if not 1 <= k <= MILVUS_LIMIT:
            raise InputError(
                f"k: expected 1 to {MILVUS_LIMIT:,}, got {k:,}; larger audiences go to the scan"
            )
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise InputError(f"query: expected finite numbers [dim], got {list(vector.shape)}")
        limit = min(k + _SPARE, MILVUS_LIMIT)
        while True:
            ids, scores = self._hits(collection, vector, limit)
            settled = len(ids) < limit or limit == MILVUS_LIMIT or scores[-1] < scores[k - 1]
            if settled:
                break
            limit = min(limit * 2, MILVUS_LIMIT)
        order = np.lexsort((np.array(ids, dtype=str), -scores))[:k]
        return [ids[place] for place in order], scores[order]

    def drop(self, collection: str) -> None:
        """Remove a collection and the aliases on it; nothing happens if there is none."""
        with _translated(self.uri):
            self._forget(collection)

    def set_alias(self, alias: str, collection: str) -> None:
        """Point ``alias`` at ``collection``, which is loaded first."""
        with _translated(self.uri):
            self._load(collection)
            known = self._client.list_aliases(timeout=_SECONDS)["aliases"]
            change = self._client.alter_alias if alias in known else self._client.create_alias
            change(collection_name=collection, alias=alias, timeout=_SECONDS)

    def drop_alias(self, alias: str) -> None:
        """Remove ``alias``; nothing happens if there is none."""
        with _translated(self.uri):
            if alias in self._client.list_aliases(timeout=_SECONDS)["aliases"]:
                self._client.drop_alias(alias=alias, timeout=_SECONDS)

    def alias(self, alias: str) -> str | None:
        """The collection that ``alias`` points at, or None."""
        with _translated(self.uri):
            if alias not in self._client.list_aliases(timeout=_SECONDS)["aliases"]:
                return None
            described = self._client.describe_alias(alias=alias, timeout=_SECONDS)
            return str(described["collection_name"])

    def list(self) -> Names:
        """Names of all collections, sorted."""
        with _translated(self.uri):
            return sorted(self._client.list_collections(timeout=_SECONDS))

    # --- inside

    def _define(self, collection: str, dim: int, columns: pa.Table) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("user_id", DataType.VARCHAR, is_primary=True, max_length=_MAX_TEXT)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
        schema.add_field("space", DataType.VARCHAR, max_length=_MAX_TEXT)
        schema.add_field("as_of", DataType.INT64)
        for column in columns.drop_columns(["user_id"]).schema:
            kind, extra = _TYPES[column.type]
            schema.add_field(column.name, kind, nullable=True, **extra)
        index = self._client.prepare_index_params()
        index.add_index("embedding", index_type="FLAT", metric_type="IP")
        self._client.create_collection(
            collection, schema=schema, index_params=index, timeout=_SECONDS
        )

    def _load(self, collection: str) -> None:
        """Needed once in each process, or Lite answers "not loaded"."""
        if collection not in self._loaded:
            self._client.load_collection(collection, timeout=_SECONDS)
            self._loaded.add(collection)

    def _forget(self, collection: str) -> None:
        self._loaded.discard(collection)
        if not self._client.has_collection(collection, timeout=_SECONDS):
            return
        # A Milvus server refuses to drop a collection that has an alias.
        for alias in self._client.list_aliases(collection, timeout=_SECONDS)["aliases"]:
            self._client.drop_alias(alias=alias, timeout=_SECONDS)
        self._client.drop_collection(collection, timeout=_SECONDS)

    def _hits(self, collection: str, vector: Floats, limit: int) -> tuple[Names, Floats]:
        with _translated(self.uri):
            self._load(collection)
            # No metric_type: Lite would silently mix the one asked for with the index's.
            hits = self._client.search(
                collection,
                data=[vector],
                anns_field="embedding",
                limit=limit,
                output_fields=[],
                timeout=_SECONDS,
            )[0]
        # By column: one object per hit would take as long as the search.
        return list(hits.ids), np.asarray(hits.distances, dtype=np.float32)


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        yield
    except MilvusException as error:
        raise VectorsUnavailable(f"Milvus at {uri}: {error.message}") from error


def _options(uri: str) -> dict[str, int]:
    """gRPC would look for loopback behind the proxy of the environment."""
    local = urlsplit(uri).hostname in ("127.0.0.1", "localhost", "::1")
    return {"grpc.enable_http_proxy": 0} if local else {}


def _check_rows(ids: Sequence[str], matrix: Floats) -> None:
    if matrix.ndim != 2 or len(matrix) != len(ids) or matrix.dtype != np.float32:
        raise InputError(
            f"matrix: expected float32 [{len(ids)}, dim], one row per id, "
            f"got {matrix.dtype} {list(matrix.shape)}"
        )
    if not np.isfinite(matrix).all():
        raise InputError("matrix: expected finite numbers, got NaN or infinity")
    if len(set(ids)) != len(ids):
        raise InputError(f"ids: expected distinct user ids, {len(ids) - len(set(ids))} come again")
    longest = max(ids, key=lambda user: len(user.encode()), default="")
    if not all(ids) or len(longest.encode()) > _MAX_TEXT:
        raise InputError(f"ids: expected 1 to {_MAX_TEXT} bytes each, got {longest[:40]!r}…")


def filterable(table: pa.Table) -> pa.Table:
    """Only those columns of ``table``, and user_id, that a collection can take as metadata."""
    return table.select(
        [
            column.name
            for column in table.schema
            if column.name == "user_id" or (column.type in _TYPES and column.name not in _OURS)
        ]
    )


def _metadata_columns(metadata: pa.Table | None, ids: Sequence[str]) -> pa.Table:
    """user_id and the metadata, one row per id, only columns that Milvus can filter by."""
    users = pa.table({"user_id": pa.array(ids, pa.string())})
    if metadata is None:
        return users
    if len(metadata) != len(ids):
        raise InputError(f"metadata: expected {len(ids)} rows, got {len(metadata)}")
    for column in metadata.schema:
        if column.name == "user_id":
            if metadata["user_id"].to_pylist() != [*ids]:
                raise InputError("metadata: expected user_id in the order of ids")
            continue
        if column.type not in _TYPES or column.name in _OURS:
            raise InputError(
                f"metadata.{column.name}: expected {', '.join(map(str, _TYPES))} under a name "
                f"other than {', '.join(_OURS)}, got {column.type}"
            )
        users = users.append_column(column, metadata[column.name])
    return users
