from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest

from feature_repo import matrix as module
from feature_repo.errors import InputError, ManifestError, MissingKind
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.snapshots import Manifest

Publish = Callable[..., Manifest]

N, DIM = 500, 16


@pytest.fixture
def planted() -> tuple[Matrix, np.ndarray]:
    """500 users in no order, of small integers so that float32 is exact, and many are tied."""
    generator = np.random.default_rng(7)
    vectors = generator.integers(-2, 3, (N, DIM)).astype(np.float32)
    vectors[::9] = vectors[0]
    ids = [str(n) for n in generator.permutation(N)]
    return Matrix(vectors, pa.array(ids)), generator.integers(-2, 3, DIM).astype(np.float32)


def brute_force(matrix: Matrix, query: np.ndarray) -> list[tuple[str, float]]:
    scores = matrix.vectors.astype(np.float64) @ query.astype(np.float64)
    return sorted(zip(matrix.ids, scores.tolist(), strict=True), key=lambda row: (-row[1], row[0]))


@pytest.mark.parametrize("block", [1, 7, 8_192])
def test_scan_equals_brute_force_for_every_k(
    planted: tuple[Matrix, np.ndarray], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", block)
    matrix, query = planted
    expected = brute_force(matrix, query)
    for k in [*range(1, N + 1, 1 if block == 7 else 50), N, N + 1, 10 * N, None]:
        ids, scores = matrix.scan(query, k)
        assert list(zip(ids, scores.tolist(), strict=True)) == expected[:k], k
    assert scores.dtype == np.float32


def test_equal_vectors_have_equal_scores_wherever_they_lie() -> None:
    """BLAS' matrix-vector product fails this at 37, 256 and 257 dimensions."""
    generator = np.random.default_rng(0)
    for dim in (8, 37, 256, 257):
        vectors = generator.standard_normal((1_003, dim)).astype(np.float32)
        vectors[::7] = vectors[0]
        matrix = Matrix(vectors, pa.array([f"{n:04}" for n in range(len(vectors))]))
        query = generator.standard_normal(dim).astype(np.float32)
        assert len(np.unique(matrix.scores(query)[::7])) == 1
        np.testing.assert_allclose(
            matrix.scores(query), vectors.astype(np.float64) @ query, rtol=1e-4, atol=1e-4
        )


def test_filters_act_before_k(planted: tuple[Matrix, np.ndarray]) -> None:
    matrix, query = planted
    allowed = np.zeros(N, dtype=bool)
    allowed[::3] = True
    permitted = {user for user, yes in zip(matrix.ids, allowed, strict=True) if yes}
    expected = [row for row in brute_force(matrix, query) if row[0] in permitted]
    for k in (1, 10, len(expected), None):
        ids, scores = matrix.scan(query, k, allowed=allowed)
        assert list(zip(ids, scores.tolist(), strict=True)) == expected[:k]
    least = expected[20][1]
    ids, scores = matrix.scan(query, min_score=least, allowed=allowed)
    assert ids == [user for user, score in expected if score >= least]
    assert matrix.scan(query, 5, allowed=np.zeros(N, dtype=bool))[0] == []
    assert matrix.scan(query, min_score=1e9)[0] == []


def test_negative_zero_ties_with_zero() -> None:
    vectors = np.array([[-0.0], [0.0], [-1.0]], dtype=np.float32)
    ids, _ = Matrix(vectors, pa.array(["c", "a", "b"])).scan(np.array([1.0]))
    assert ids == ["a", "c", "b"]


def test_wrong_arguments_are_named(planted: tuple[Matrix, np.ndarray]) -> None:
    matrix, query = planted
    with pytest.raises(InputError, match="k: expected at least 1, got 0"):
        matrix.scan(query, 0)
    with pytest.raises(InputError, match=r"query: expected 16 finite numbers, got shape \[3\]"):
        matrix.scan(query[:3])
    with pytest.raises(InputError, match="with NaN"):
        matrix.scan(np.full(DIM, np.nan))
    with pytest.raises(InputError, match=r"allowed: expected bool \[500\], got int64 \[500\]"):
        matrix.scan(query, allowed=np.ones(N, dtype=np.int64))
    with pytest.raises(InputError, match="one row per user"):
        Matrix(matrix.vectors[:10], matrix.users)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_write_refuses_what_is_not_finite_and_leaves_the_old_file(
    tmp_path: Path, bad: float
) -> None:
    path = tmp_path / "matrix" / "fused.npy"
    good = np.ones((4, 2), dtype=np.float32)
    Matrix.write(path, good)
    broken = good.copy()
    broken[2, 1] = bad
    with pytest.raises(InputError, match="got NaN or infinity in row 2"):
        Matrix.write(path, broken)
    with pytest.raises(InputError, match=r"expected \[N, dim\]"):
        Matrix.write(path, good[0])
    np.testing.assert_array_equal(np.load(path), good)
    assert [p.name for p in path.parent.iterdir()] == ["fused.npy"]


def test_write_stores_float32(tmp_path: Path) -> None:
    Matrix.write(tmp_path / "x.npy", np.asfortranarray(np.arange(6.0).reshape(3, 2)))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert stored.dtype == np.float32 and stored.flags.c_contiguous
    np.testing.assert_array_equal(stored, [[0, 1], [2, 3], [4, 5]])


def test_open_maps_the_file_of_the_manifest(
    workspace: Workspace, publish: Publish, tiny: ModuleType
) -> None:
    manifest = publish(1, seed=1)
    matrix = Matrix.open(manifest, "tabular", workspace)
    assert matrix.ids == tiny.USERS
    assert isinstance(matrix.vectors, np.memmap), "the matrix must not be read into memory"
    np.testing.assert_array_equal(matrix.vectors, tiny.vectors_of(1, "tabular"))


def test_open_names_what_is_missing_or_wrong(workspace: Workspace, publish: Publish) -> None:
    manifest = publish(1, seed=1)
    with pytest.raises(MissingKind, match="has behaviour, fused, search, tabular, got 'ir'"):
        Matrix.open(manifest, "ir", workspace)
    path = workspace.root / manifest.kinds["fused"].matrix
    Matrix.write(path, np.ones((3, 8)))
    with pytest.raises(ManifestError, match=r"fused.npy holds float32 \[3, 8\], its manifest"):
        Matrix.open(manifest, "fused", workspace)
    path.write_bytes(b"not an array")
    with pytest.raises(ManifestError, match="cannot be read"):
        Matrix.open(manifest, "fused", workspace)
    path.unlink()
    with pytest.raises(ManifestError, match="cannot be read"):
        Matrix.open(manifest, "fused", workspace)


def test_cold_users_are_in_no_ranking() -> None:
    """A score of 0 would stand before everybody whose taste is known to be another."""
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((40, 5)).astype(np.float32)
    vectors[[4, 7]] = 0.0
    matrix = Matrix(vectors, pa.array([f"{n:02}" for n in range(40)]), cold=2)
    cold = {"04", "07"}
    query = -vectors[~np.isin(np.arange(40), [4, 7])].mean(0)
    for asked in (
        matrix.scan(query),
        matrix.scan(query, 1_000),
        matrix.scan(query, 39),
        matrix.scan(query, min_score=-1e9),
        matrix.scan(query, allowed=np.ones(40, bool)),
    ):
        assert len(asked[0]) == 38 and not cold & {*asked[0]}
    assert matrix.scan(query, allowed=~matrix.warm)[0] == []
    declared_none = Matrix(vectors, matrix.users)
    assert cold <= {*declared_none.scan(query)[0]}, "only a manifest declares users cold"
