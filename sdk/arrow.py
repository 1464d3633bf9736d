"""The two large answers as Arrow streams; server and client use the same file.

Media type ``application/vnd.apache.arrow.stream``: one Arrow IPC stream.

==========  =======================================================================
audience    ``user_id`` string, ``score`` float64; best first, ties by user id
embeddings  ``user_id`` string, ``embedding`` fixed-size list of float32; as asked
==========  =======================================================================

No value is null. The schema's metadata has two keys: ``openfound`` is the JSON of the answer
without its rows (``TargetMeta``, ``EmbeddingsMeta``), ``openfound.rows`` the number of rows. An
Arrow stream that is cut off between two batches reads like a complete one; the row count tells.

Encoding checks everything before it returns, then yields bytes batch by batch, so a server can
stream an audience of millions without holding it twice:

>>> from datetime import datetime
>>> meta = TargetMeta(snapshot="a", space="b", as_of=datetime(2017, 11, 6), horizon_days=28,
...                   engine="scan", population=2)
>>> data = b"".join(encode_audience(meta, ["12", "7"], [0.9, 0.1]))
>>> decoded, table = decode_audience(data)
>>> decoded == meta, table.num_rows, table.schema.names
(True, 2, ['user_id', 'score'])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from sdk.errors import UnexpectedAnswer
from sdk.types import EmbeddingsMeta, EmbeddingsResponse, TargetMeta, TargetResponse

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
META_KEY: Final = b"openfound"
ROWS_KEY: Final = b"openfound.rows"
BATCH_ROWS: Final = 65_536

_Meta = TypeVar("_Meta", bound=BaseModel)


def wants_arrow(accept: str | None) -> bool:
    """Whether an ``Accept`` header asks for the Arrow stream (otherwise answer in JSON)."""
    offers = [offer.split(";") for offer in (accept or "").lower().split(",")]
    return any(
        name.strip() == ARROW_STREAM and not any(_is_zero(option) for option in options)
        for name, *options in offers
    )


def audience_schema() -> pa.Schema:
    """Columns of an audience."""
    return pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("score", pa.float64(), nullable=False),
        ]
    )


def embeddings_schema(dim: int) -> pa.Schema:
    """Columns of embeddings with ``dim`` numbers each."""
    vector = pa.list_(pa.field("item", pa.float32(), nullable=False), dim)
    return pa.schema(
        [
            pa.field("user_id", pa.string(), nullable=False),
            pa.field("embedding", vector, nullable=False),
        ]
    )


def audience_table(meta: TargetMeta, user_ids: Sequence[str] | pa.Array, scores: Any) -> pa.Table:
    """Table of an audience: ``scores`` [n] is a list, a numpy array or an Arrow array.

    Raises ValueError if the two differ in length.
    """
    ids = _strings(user_ids)
    values = _array(scores).cast(pa.float64())
    if len(ids) != len(values):
        raise ValueError(f"user_ids has {len(ids)} entries, scores has {len(values)}")
    return _table([ids, values], audience_schema(), meta, TargetMeta)


def embeddings_table(
    meta: EmbeddingsMeta, user_ids: Sequence[str] | pa.Array, matrix: Any
) -> pa.Table:
    """Table of embeddings: ``matrix`` [n, dim] is a numpy array, rows, or a fixed-size list array.

    Raises ValueError if it is not one vector of ``meta.dim`` numbers per user.
    """
    ids = _strings(user_ids)
    flat = _flat(matrix)
    if len(flat) != len(ids) * meta.dim:
        raise ValueError(
            f"matrix has {len(flat)} numbers, expected {len(ids)} users x dim {meta.dim}"
        )
    schema = embeddings_schema(meta.dim)
    vectors = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
    return _table([ids, vectors], schema, meta, EmbeddingsMeta)


def encode_audience(
    meta: TargetMeta, user_ids: Sequence[str] | pa.Array, scores: Any
) -> Iterator[bytes]:
    """Arrow stream of an audience, in pieces; arguments as in ``audience_table``."""
    return _pieces(audience_table(meta, user_ids, scores))


def encode_embeddings(
    meta: EmbeddingsMeta, user_ids: Sequence[str] | pa.Array, matrix: Any
) -> Iterator[bytes]:
    """Arrow stream of embeddings, in pieces; arguments as in ``embeddings_table``."""
    return _pieces(embeddings_table(meta, user_ids, matrix))


def decode_audience(data: bytes) -> tuple[TargetMeta, pa.Table]:
    """Meta and table (``user_id``, ``score``) of an Arrow stream; raises UnexpectedAnswer."""
    table = _read(data)
    meta = _meta(table, TargetMeta)
    return meta, _as(table, audience_schema())


def decode_embeddings(data: bytes) -> tuple[EmbeddingsMeta, pa.Table]:
    """Meta and table (``user_id``, ``embedding``) of an Arrow stream; raises UnexpectedAnswer."""
    table = _read(data)
    meta = _meta(table, EmbeddingsMeta)
    return meta, _as(table, embeddings_schema(meta.dim))


def audience_from_json(answer: TargetResponse) -> tuple[TargetMeta, pa.Table]:
    """The same as ``decode_audience``, of an answer that came as JSON."""
    meta = TargetMeta.model_validate(answer.model_dump(exclude={"users"}))
    ids = [user.user_id for user in answer.users]
    table = audience_table(meta, ids, [user.score for user in answer.users])
    return meta, table.replace_schema_metadata()


def embeddings_from_json(answer: EmbeddingsResponse) -> tuple[EmbeddingsMeta, pa.Table]:
    """The same as ``decode_embeddings``, of an answer that came as JSON."""
    meta = EmbeddingsMeta.model_validate(answer.model_dump(exclude={"embeddings"}))
    ids = [row.user_id for row in answer.embeddings]
    table = embeddings_table(meta, ids, [row.embedding for row in answer.embeddings])
    return meta, table.replace_schema_metadata()


def _is_zero(option: str) -> bool:
    return option.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"}


def _array(values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    return values if isinstance(values, pa.Array) else pa.array(values)


def _strings(values: Sequence[str] | pa.Array) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return _array(values).cast(pa.string())
    return pa.array(values, type=pa.string())


def _flat(matrix: Any) -> pa.Array:
    """All numbers of a matrix, row after row, as float32."""
    if isinstance(matrix, pa.Array | pa.ChunkedArray):
        return _array(matrix).flatten().cast(pa.float32())
    if hasattr(matrix, "reshape"):  # numpy, without importing it
        return pa.array(matrix.reshape(-1)).cast(pa.float32())
    return pa.array([number for row in matrix for number in row], type=pa.float32())


def _table(
    columns: list[pa.Array], schema: pa.Schema, meta: BaseModel, plain: type[BaseModel]
) -> pa.Table:
    for column, field in zip(columns, schema, strict=True):
        if column.null_count:
            raise ValueError(f"{field.name} has {column.null_count} nulls, expected none")
    # A response object may be passed as its own meta: only the meta's fields are written.
    text = meta.model_dump_json(include=set(plain.model_fields))
    keys = {META_KEY: text.encode(), ROWS_KEY: str(len(columns[0])).encode()}
    return pa.Table.from_arrays(columns, schema=schema.with_metadata(keys))


class _Pieces:
    """A file to Arrow that hands out what was written since it was last asked."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


def _pieces(table: pa.Table) -> Iterator[bytes]:
    sink = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema) as writer:
        for batch in table.to_batches(max_chunksize=BATCH_ROWS):
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def _read(data: bytes) -> pa.Table:
    try:
        with pa.ipc.open_stream(data) as reader:
            table = reader.read_all()
        # Untrusted bytes: offsets that point outside a buffer would crash a later read.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnexpectedAnswer(f"The Arrow stream cannot be read: {error}.") from error
    return table


def _meta(table: pa.Table, model: type[_Meta]) -> _Meta:
    found = table.schema.metadata or {}
    if META_KEY not in found or ROWS_KEY not in found:
        raise UnexpectedAnswer("The Arrow stream lacks the schema metadata `openfound`.")
    try:
        rows = int(found[ROWS_KEY])
        meta = model.model_validate_json(found[META_KEY])
    except (ValidationError, ValueError) as error:
        raise UnexpectedAnswer("The metadata of the Arrow stream is not understood.") from error
    if rows != table.num_rows:
        raise UnexpectedAnswer(
            f"The answer was cut off: {table.num_rows} of {rows} rows came.",
            remedy="Ask again.",
        )
    return meta


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.names != schema.names or any(column.null_count for column in table.columns):
        raise UnexpectedAnswer(
            f"The Arrow stream has the columns {table.schema.names}, expected {schema.names} "
            "without nulls."
        )
    try:
        return table.replace_schema_metadata().cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise UnexpectedAnswer(f"The Arrow stream has a wrong column: {error}.") from error
