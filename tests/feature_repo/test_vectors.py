import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_repo import vectors as module
from feature_repo.errors import InputError, VectorsUnavailable
from feature_repo.matrix import Matrix
from feature_repo.milvus_server import milvus
from feature_repo.settings import Workspace
from feature_repo.vectors import MILVUS_LIMIT, Vectors, filterable

pytestmark = pytest.mark.milvus

AS_OF = datetime(2017, 9, 11, tzinfo=UTC)
STAMP = {"space": "a1b2", "as_of": AS_OF}
N, DIM = 3_000, 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, str]]:
    workspace = Workspace(tmp_path_factory.mktemp("milvus"))
    with milvus(workspace) as uri:
        yield workspace, uri


@pytest.fixture
def vectors(server: tuple[Workspace, str]) -> Iterator[Vectors]:
    vectors = Vectors(server[1])
    yield vectors
    for collection in vectors.list():
        vectors.drop(collection)


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """3,000 users in no order; a third share one vector, so that there are ties at every k."""
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((N, DIM)).astype(np.float32)
    rows[::3] = rows[0]
    return Matrix(rows, pa.array([str(n) for n in generator.permutation(N)]))


def test_search_gives_what_the_exact_scan_gives(vectors: Vectors, matrix: Matrix) -> None:
    vectors.create("fused__1", matrix.ids, matrix.vectors, **STAMP)
    assert vectors.count("fused__1") == N
    generator = np.random.default_rng(4)
    queries = [matrix.vectors[0], *generator.standard_normal((3, DIM)).astype(np.float32)]
    for query in queries:
        for k in (1, 10, 100, 1_000, N, N + 5):
            expected, exact = matrix.scan(query, k)
            ids, scores = vectors.search("fused__1", query, k)
            recall = len(set(ids) & set(expected)) / len(expected)
            assert recall >= 0.99, (k, recall)
            np.testing.assert_allclose(scores, exact, atol=1e-5 * float(np.abs(exact).max()))
            assert len(ids) == len(set(ids)) == min(k, N) and scores.dtype == np.float32


def test_ties_go_by_user_id_also_for_the_last_place(vectors: Vectors, matrix: Matrix) -> None:
    vectors.create("fused__1", matrix.ids, matrix.vectors, **STAMP)
    tied = sorted(matrix.ids[::3])
    for k in (1, 3, 70, 500, 999):
        assert vectors.search("fused__1", matrix.vectors[0], k)[0] == tied[:k]


def test_arguments_are_checked_before_milvus_is_asked(vectors: Vectors, matrix: Matrix) -> None:
    query = matrix.vectors[0]
    for k in (0, -1, MILVUS_LIMIT + 1):
        with pytest.raises(InputError, match=r"k: expected 1 to 16,384, got .* go to the scan"):
            vectors.search("any", query, k)
    with pytest.raises(InputError, match="query: expected finite numbers"):
        vectors.search("any", query * np.nan, 1)

    two = matrix.vectors[:2]
    for ids, rows, message in [
        (["1"], two, "one row per id"),
        (["1", "2"], two.astype(np.float64), "expected float32"),
        (["1", "2"], two * np.inf, "NaN or infinity"),
        (["1", "1"], two, "1 come again"),
        (["1", ""], two, "1 to 512 bytes"),
        (["1", "é" * 257], two, "1 to 512 bytes"),
    ]:
        with pytest.raises(InputError, match=message):
            vectors.create("x", ids, rows, **STAMP)
    for table, message in [
        (pa.table({"user_id": ["2", "1"], "city": ["a", "b"]}), "in the order of ids"),
        (pa.table({"city": ["a"]}), "expected 2 rows, got 1"),
        (pa.table({"space": ["a", "b"]}), "metadata.space: .* other than"),
        (pa.table({"tags": [["a"], ["b"]]}), "metadata.tags: expected string, int64"),
    ]:
        with pytest.raises(InputError, match=message):
            vectors.create("x", ["1", "2"], two, metadata=table, **STAMP)
    assert vectors.list() == []


def test_metadata_and_provenance_can_be_filtered_by(vectors: Vectors, matrix: Matrix) -> None:
    users = pa.table(
        {"user_id": ["a", "b"], "city": ["Ulm", None], "age": [30, 9], "odd": [[1], [2]]}
    )
    metadata = filterable(users)
    assert metadata.column_names == ["user_id", "city", "age"]
    vectors.create("m", ["a", "b"], matrix.vectors[:2], metadata=metadata, **STAMP)
    fields = ["user_id", "city", "age", "space", "as_of"]
    rows = vectors._client.query("m", filter="age > 20", output_fields=fields)
    assert [dict(row) for row in rows] == [
        {"user_id": "a", "city": "Ulm", "age": 30, "space": "a1b2",
         "as_of": int(AS_OF.timestamp())}
    ]  # fmt: skip
    vectors.create("m", ["a"], matrix.vectors[:1], metadata=users.select(["user_id"])[:1], **STAMP)
    assert vectors.count("m") == 1, "creating anew drops what was there"


def test_an_alias_moves_and_goes_with_its_collection(vectors: Vectors, matrix: Matrix) -> None:
    for name, rows in (("one", slice(0, 3)), ("two", slice(3, 6))):
        vectors.create(name, matrix.ids[rows], matrix.vectors[rows], **STAMP)
    assert vectors.alias("user_embeddings") is None
    for name, rows in (("one", slice(0, 3)), ("two", slice(3, 6)), ("one", slice(0, 3))):
        vectors.set_alias("user_embeddings", name)
        assert vectors.alias("user_embeddings") == name
        found, _ = vectors.search("user_embeddings", matrix.vectors[0], 3)
        assert set(found) == set(matrix.ids[rows])
    vectors.drop_alias("user_embeddings")
    vectors.drop_alias("user_embeddings")
    assert vectors.alias("user_embeddings") is None and vectors.count("one") == 3
    vectors.set_alias("user_embeddings", "one")
    vectors.drop("one")
    vectors.drop("one")
    assert vectors.alias("user_embeddings") is None
    assert vectors.list() == ["two"] and vectors.count("one") == 0


def test_more_than_one_batch_arrives_whole(
    vectors: Vectors, matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 7)
    vectors.create("b", matrix.ids[:50], matrix.vectors[:50], **STAMP)
    assert vectors.count("b") == 50
    assert set(vectors.search("b", matrix.vectors[0], 50)[0]) == set(matrix.ids[:50])


def test_what_milvus_refuses_is_one_quiet_error(
    vectors: Vectors, matrix: Matrix, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(VectorsUnavailable, match="collection 'nope' does not exist"):
        vectors.search("nope", matrix.vectors[0], 3)
    assert "Traceback" not in capfd.readouterr().err
    assert logging.getLogger("pymilvus").getEffectiveLevel() > logging.CRITICAL


def run(workspace: Workspace, code: str) -> "subprocess.Popen[str]":
    program = f"""
        import time
        from feature_repo.milvus_server import milvus
        from feature_repo.settings import Workspace
        from feature_repo.vectors import Vectors
        workspace = Workspace({str(workspace.root)!r})
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_another_process_finds_the_server_and_leaves_it_running(
    server: tuple[Workspace, str], vectors: Vectors, matrix: Matrix
) -> None:
    vectors.create("shared", ["a"], matrix.vectors[:1], **STAMP)
    code = """
        with milvus(workspace) as uri:
            vectors = Vectors(uri)
            found = vectors.search("shared", [1.0] * 64, 1)[0]
            print(uri, vectors.count("shared"), found)
    """
    out, _ = run(server[0], code).communicate()
    assert out == f"{server[1]} 1 ['a']\n"
    assert vectors.count("shared") == 1


def test_the_server_is_private_and_its_end_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with milvus(workspace) as uri:
        address = json.loads((workspace.milvus / "address").read_text())
        assert address["uri"] == uri and uri.startswith("http://127.0.0.1:")
        port = int(uri.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port), 1).close()
        with pytest.raises(ConnectionRefusedError):  # bound to every interface it would accept
            socket.create_connection(("127.0.0.2", port), 1)
        assert (workspace.milvus / "server.log").exists()
    assert not (workspace.milvus / "address").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(address["pid"], 0)
    with pytest.raises(VectorsUnavailable, match="nothing answers at http://127.0.0.1"):
        Vectors(uri)


def test_killed_users_free_the_data_for_the_next_and_data_survive(
    tmp_path: Path, matrix: Matrix
) -> None:
    workspace = Workspace(tmp_path)
    code = """
        with milvus(workspace) as uri:
            print(uri, flush=True)
            time.sleep(60)
    """
    user = run(workspace, code)
    assert user.stdout is not None
    first = user.stdout.readline().strip()
    Vectors(first).create("kept", ["a"], matrix.vectors[:1], **STAMP)
    user.send_signal(signal.SIGKILL)
    user.wait()
    user.stdout.close()
    with milvus(workspace) as uri:
        assert Vectors(uri).count("kept") == 1
        assert Vectors(uri).search("kept", matrix.vectors[0], 5)[0] == ["a"]


def test_a_server_that_dies_is_reported_fast_and_started_anew(
    tmp_path: Path, matrix: Matrix, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path)
    with milvus(workspace) as uri:
        vectors = Vectors(uri)
        vectors.create("x", ["a"], matrix.vectors[:1], **STAMP)
        os.kill(json.loads((workspace.milvus / "address").read_text())["pid"], signal.SIGKILL)
        time.sleep(0.2)
        began = time.monotonic()
        with pytest.raises(VectorsUnavailable, match="Fail connecting"):
            vectors.search("x", matrix.vectors[0], 1)
        assert time.monotonic() - began < 5
        assert "Traceback" not in capfd.readouterr().err
        with milvus(workspace) as again:  # the address file is stale now
            assert again != uri and Vectors(again).count("x") == 1


def test_a_foreign_owner_of_the_data_is_named(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with milvus(workspace):
        os.rename(workspace.milvus / "address", tmp_path / "aside")
        with pytest.raises(VectorsUnavailable, match="without an address file that answers") as e:
            with milvus(workspace):
                pass
        assert "OPENFOUND_MILVUS_URI" in str(e.value) and "server.log" in str(e.value)


def test_an_address_of_another_workspace_is_not_believed(
    server: tuple[Workspace, str], tmp_path: Path
) -> None:
    """The system may give the port of a dead server to the server of another workspace."""
    workspace = Workspace(tmp_path)
    workspace.milvus.mkdir()
    stale = (server[0].milvus / "address").read_text()
    (workspace.milvus / "address").write_text(stale)
    with milvus(workspace) as uri:
        assert uri != server[1]


def test_a_named_milvus_is_used_or_reported(
    server: tuple[Workspace, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFOUND_MILVUS_URI", server[1])
    with milvus(Workspace(tmp_path)) as uri:
        assert uri == server[1] and not (tmp_path / "milvus").exists()
    monkeypatch.setenv("OPENFOUND_MILVUS_URI", "http://127.0.0.1:1")
    with pytest.raises(VectorsUnavailable, match="OPENFOUND_MILVUS_URI: nothing answers"):
        with milvus(Workspace(tmp_path)):
            pass


def test_a_proxy_in_the_environment_does_not_hide_loopback(
    server: tuple[Workspace, str], vectors: Vectors, matrix: Matrix
) -> None:
    vectors.create("p", ["a"], matrix.vectors[:1], **STAMP)
    code = f"""
        import os
        os.environ["http_proxy"] = os.environ["HTTP_PROXY"] = "http://127.0.0.1:9"
        print(Vectors({server[1]!r}).count("p"))
    """
    out, _ = run(server[0], code).communicate()
    assert out == "1\n"
