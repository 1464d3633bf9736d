"""Audiences and embeddings: what they say about themselves, and the files they write."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdk import arrow, audience
from sdk.audience import Audience, Embeddings
from sdk.errors import UsageError
from sdk.types import EmbeddingsMeta, TargetMeta

AS_OF = datetime(2017, 11, 6, tzinfo=UTC)


def make_audience(rows: int = 3) -> Audience:
    meta = TargetMeta(
        snapshot="20171106_ab_1",
        space="ab12",
        as_of=AS_OF,
        horizon_days=28,
        engine="scan",
        population=2_456,
        notes=["a note"],
    )
    ids = [f"u{i}" for i in range(rows)]
    table = arrow.audience_table(meta, ids, [1 - i / max(rows, 1) for i in range(rows)])
    return Audience(text="will buy diapers", meta=meta, table=table.replace_schema_metadata())


def make_embeddings(rows: int = 2) -> Embeddings:
    meta = EmbeddingsMeta(snapshot="s", space="p", as_of=AS_OF, kind="fused", dim=4, missing=["99"])
    matrix = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    table = arrow.embeddings_table(meta, [f"u{i}" for i in range(rows)], matrix)
    return Embeddings(meta=meta, table=table.replace_schema_metadata())


def test_an_audience_is_a_collection_of_scored_users() -> None:
    members = make_audience(4)
    assert len(members) == 4
    assert members.ids == ["u0", "u1", "u2", "u3"]
    assert members.scores == [1.0, 0.75, 0.5, 0.25]
    assert dict(members) == dict(zip(members.ids, members.scores, strict=True))
    assert next(iter(members)).user_id == "u0"
    assert "u3" in members
    assert "u4" not in members
    assert (members.space, members.snapshot, members.engine) == ("ab12", "20171106_ab_1", "scan")
    assert (members.as_of, members.horizon_days, members.population) == (AS_OF, 28, 2_456)
    assert members.notes == ["a note"]


def test_its_repr_tells_the_marketer_what_it_is() -> None:
    assert repr(make_audience()) == (
        "Audience: 3 of 2,456 users for 'will buy diapers'\n"
        "  scores  1.0000 … 0.3333 (scan)\n"
        "  as of   2017-11-06, for the 28 days that follow\n"
        "  from    snapshot 20171106_ab_1, space ab12\n"
        "  note    a note"
    )
    assert "scores" not in repr(make_audience(0))


@pytest.mark.parametrize("rows", [0, 3, 65_536, 65_540])
def test_every_row_says_where_it_comes_from(rows: int) -> None:
    table = make_audience(rows).to_arrow()
    assert table.schema.names == ["user_id", "score", "space", "snapshot", "as_of"]
    assert table.schema.field("as_of").type == pa.timestamp("us", tz="UTC")
    assert table.num_rows == rows
    table.validate(full=True)
    assert set(table["space"].to_pylist()) == ({"ab12"} if rows else set())


def test_pandas_gets_the_same_columns() -> None:
    frame = make_audience().to_pandas()
    assert frame["user_id"].tolist() == ["u0", "u1", "u2"]
    assert str(frame["as_of"].dtype) == "datetime64[us, UTC]"
    vectors = make_embeddings().to_pandas()
    assert vectors.loc[1, "embedding"].tolist() == [4, 5, 6, 7]


def test_a_file_reads_back_as_it_was(tmp_path: Path) -> None:
    made = make_audience()
    path = made.to_parquet(tmp_path / "a.parquet")
    assert path == tmp_path / "a.parquet"
    back = pq.read_table(path)
    assert back.equals(made.to_arrow())
    assert back.schema.metadata[b"text"] == b"will buy diapers"
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_embeddings_have_the_contract_s_parquet_layout(tmp_path: Path) -> None:
    schema = pq.read_schema(make_embeddings().to_parquet(tmp_path / "e.parquet"))
    assert schema.names == ["user_id", "embedding", "space", "snapshot", "as_of"]
    vector = schema.field("embedding").type
    assert pa.types.is_fixed_size_list(vector)
    assert (vector.list_size, vector.value_type) == (4, pa.float32())
    assert schema.field("user_id").type == schema.field("space").type == pa.string()
    assert schema.field("as_of").type == pa.timestamp("us", tz="UTC")


def test_embeddings_give_their_matrix() -> None:
    made = make_embeddings()
    assert (len(made), made.dim, made.kind, made.missing) == (2, 4, "fused", ["99"])
    assert list(made) == made.ids == ["u0", "u1"]
    assert isinstance(made.matrix, pa.FixedSizeListArray)
    matrix = made.to_numpy()
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert "2 users x 4 (fused), 1 missing" in repr(made)


def test_no_embeddings_are_an_empty_matrix() -> None:
    assert make_embeddings(0).to_numpy().shape == (0, 4)
    empty = make_embeddings(0)
    none = Embeddings(meta=empty.meta, table=empty.table.schema.empty_table())
    assert none.to_numpy().shape == (0, 4)


def test_a_failed_write_leaves_the_old_file_and_no_crumbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.parquet"
    make_audience(1).to_parquet(path)
    old = path.read_bytes()

    def full(table: pa.Table, file: object, **options: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(audience.pq, "write_table", full)
    with pytest.raises(OSError, match="disk full"):
        make_audience(2).to_parquet(path)
    assert path.read_bytes() == old
    assert [one.name for one in tmp_path.iterdir()] == ["a.parquet"]


def test_a_file_is_replaced_and_a_link_to_it_stays(tmp_path: Path) -> None:
    real, link = tmp_path / "real.parquet", tmp_path / "link.parquet"
    make_audience(1).to_parquet(real)
    link.symlink_to(real)
    make_audience(2).to_parquet(link)
    assert link.is_symlink()
    assert pq.read_metadata(real).num_rows == 2


def test_an_impossible_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no directory"):
        make_audience().to_parquet(tmp_path / "nowhere" / "a.parquet")
    with pytest.raises(UsageError, match="is not a file"):
        make_audience().to_parquet(tmp_path)
    with pytest.raises(UsageError, match="is not a file"):
        make_audience().to_parquet("/dev/null")


@pytest.mark.parametrize(("module", "method"), [("pandas", "to_pandas"), ("numpy", "to_numpy")])
def test_without_the_library_the_error_names_it(
    module: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {module}"):
        getattr(make_embeddings(), method)()
