"""The Arrow stream gives back what went in, bit by bit, and notices what is missing."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from sdk import arrow
from sdk.errors import UnexpectedAnswer
from sdk.types import (
    EmbeddingsMeta,
    EmbeddingsResponse,
    ScoredUser,
    TargetMeta,
    TargetResponse,
    UserEmbedding,
)

AUDIENCE = TargetMeta(
    snapshot="20171106_ab_1",
    space="ab",
    as_of=datetime(2017, 11, 6, tzinfo=UTC),
    horizon_days=28,
    engine="scan",
    population=200_000,
    notes=["größer als 16,384", "a\nsecond line"],
)
EMBEDDINGS = EmbeddingsMeta(
    snapshot="20171106_ab_1",
    space="ab",
    as_of=datetime(2017, 11, 6, tzinfo=UTC),
    kind="segment:young families",
    dim=3,
    missing=["99", "ünknown"],
)


def joined(pieces: object) -> bytes:
    return b"".join(pieces)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [0, 1, arrow.BATCH_ROWS, 2 * arrow.BATCH_ROWS + 7])
def test_an_audience_survives_in_batches(rows: int) -> None:
    ids = [f"u{i}" for i in range(rows)]
    scores = np.linspace(1, -1, rows, dtype=np.float64)
    meta, table = arrow.decode_audience(joined(arrow.encode_audience(AUDIENCE, ids, scores)))
    assert meta == AUDIENCE
    assert table.schema.equals(arrow.audience_schema(), check_metadata=True)
    assert table["user_id"].to_pylist() == ids
    assert table["score"].to_pylist() == scores.tolist()


@pytest.mark.parametrize(
    "scores",
    [
        [0.5, 0.25],
        np.array([0.5, 0.25], dtype=np.float32),
        pa.array([0.5, 0.25]),
        pa.chunked_array([[0.5], [0.25]]),
    ],
    ids=["list", "numpy", "array", "chunked"],
)
def test_scores_come_in_any_form(scores: object) -> None:
    ids = pa.array(["a", "b"])
    _, table = arrow.decode_audience(joined(arrow.encode_audience(AUDIENCE, ids, scores)))
    assert table["score"].to_pylist() == [0.5, 0.25]


def test_embeddings_are_equal_bit_by_bit_from_every_form() -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), 3)
    for form in (matrix, matrix.tolist(), fixed, np.asfortranarray(matrix), fixed.slice(0, 5)):
        data = joined(arrow.encode_embeddings(EMBEDDINGS, list("abcde"), form))
        meta, table = arrow.decode_embeddings(data)
        assert meta == EMBEDDINGS
        back = table["embedding"].combine_chunks().flatten().to_numpy().reshape(5, 3)
        assert back.tobytes() == matrix.tobytes()


def test_a_slice_of_a_list_array_is_taken_as_the_slice() -> None:
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(9, dtype=np.float32)), 3)
    table = arrow.embeddings_table(EMBEDDINGS, ["b", "c"], fixed.slice(1, 2))
    assert table["embedding"].to_pylist() == [[3, 4, 5], [6, 7, 8]]


def test_no_users_found_is_an_answer() -> None:
    data = joined(arrow.encode_embeddings(EMBEDDINGS, [], []))
    meta, table = arrow.decode_embeddings(data)
    assert (table.num_rows, meta.missing) == (0, ["99", "ünknown"])
    empty = np.zeros((0, 3), dtype=np.float32)
    assert joined(arrow.encode_embeddings(EMBEDDINGS, [], empty)) == data


def test_the_layout_is_the_documented_one() -> None:
    data = joined(arrow.encode_audience(AUDIENCE, ["a"], [1.0]))
    schema = pa.ipc.open_stream(data).schema
    assert schema.names == ["user_id", "score"]
    assert schema.metadata[b"openfound"] == AUDIENCE.model_dump_json().encode()
    assert schema.metadata[b"openfound.rows"] == b"1"
    vector = arrow.embeddings_schema(3).field("embedding").type
    assert (vector.list_size, vector.value_type) == (3, pa.float32())


def test_a_whole_answer_passed_as_meta_writes_its_meta_only() -> None:
    whole = TargetResponse(**AUDIENCE.model_dump(), users=[ScoredUser(user_id="a", score=1.0)])
    meta, _ = arrow.decode_audience(joined(arrow.encode_audience(whole, ["a"], [1.0])))
    assert meta == AUDIENCE


def test_json_and_arrow_give_the_same_table() -> None:
    users = [ScoredUser(user_id="a", score=0.1), ScoredUser(user_id="b", score=0.05)]
    whole = TargetResponse(**AUDIENCE.model_dump(), users=users)
    streamed = arrow.decode_audience(
        joined(arrow.encode_audience(AUDIENCE, ["a", "b"], [0.1, 0.05]))
    )
    assert arrow.audience_from_json(whole) == streamed
    rows = [UserEmbedding(user_id="a", embedding=[0.1, 0.2, 0.3])]
    vectors = EmbeddingsResponse(**EMBEDDINGS.model_dump(), embeddings=rows)
    sent = joined(arrow.encode_embeddings(EMBEDDINGS, ["a"], [[0.1, 0.2, 0.3]]))
    assert arrow.embeddings_from_json(vectors) == arrow.decode_embeddings(sent)


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        (["a"], [1.0, 2.0], "user_ids has 1 entries, scores has 2"),
        (["a", None], [1.0, 2.0], "user_id has 1 nulls"),
        (["a"], [None], "score has 1 nulls"),
    ],
)
def test_a_wrong_audience_fails_before_the_first_byte(
    ids: list[str], scores: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        arrow.encode_audience(AUDIENCE, ids, scores)


def test_a_wrong_matrix_fails_before_the_first_byte() -> None:
    with pytest.raises(ValueError, match="8 numbers, expected 2 users x dim 3"):
        arrow.encode_embeddings(EMBEDDINGS, ["a", "b"], np.zeros((2, 4)))


def test_a_stream_that_is_cut_off_is_noticed_wherever_it_is_cut() -> None:
    rows = 2 * arrow.BATCH_ROWS
    pieces = list(arrow.encode_audience(AUDIENCE, ["u"] * rows, np.zeros(rows)))
    assert len(pieces) == 3
    # At the seam of two batches, Arrow itself reads the rest without complaint.
    with pytest.raises(UnexpectedAnswer, match="cut off: 65536 of 131072 rows"):
        arrow.decode_audience(pieces[0])
    data = joined(pieces)
    for end in (0, 5, 100, len(pieces[0]) - 8, len(data) // 2, len(pieces[0]) + 100):
        with pytest.raises(UnexpectedAnswer):
            arrow.decode_audience(data[:end])


def test_foreign_bytes_are_an_unexpected_answer() -> None:
    table = pa.table({"user_id": ["a"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for data in (b"<html>", b"", sink.getvalue().to_pybytes()):
        with pytest.raises(UnexpectedAnswer):
            arrow.decode_audience(data)


def test_an_audience_is_not_read_as_embeddings() -> None:
    data = joined(arrow.encode_audience(AUDIENCE, ["a"], [1.0]))
    with pytest.raises(UnexpectedAnswer):
        arrow.decode_embeddings(data)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("application/vnd.apache.arrow.stream", True),
        ("Application/Vnd.Apache.Arrow.Stream, application/json;q=0.5", True),
        ("application/json, application/vnd.apache.arrow.stream; q=0", False),
    ],
)
def test_who_wants_arrow(accept: str | None, wanted: bool) -> None:
    assert arrow.wants_arrow(accept) is wanted
