"""The whole story on the synthetic world, once; then what is asked of its result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoders.query import QueryEncoder
from feature_repo.errors import InputError, MissingKind
from feature_repo.manifest import Manifest
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from ray_jobs import export, pipeline

pytestmark = pytest.mark.milvus

FAST_SECONDS = 30  # a reused run takes about five; the machine may be busy


@dataclass(frozen=True)
class Published:
    workspace: Workspace
    settings: dict[str, Any]
    manifest: Manifest


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, bench: ModuleType, tiny_presets: None
) -> Published:
    root = tmp_path_factory.mktemp("published") / "workspace"
    settings = {"workspace": str(root), "source": bench.SPEC, "as_of": bench.AS_OF,
                "preset": "tiny"}  # fmt: skip
    done = pipeline.run(pipeline.Pipeline(**settings))
    workspace = Workspace(root)
    manifest = SnapshotStore(workspace).live()
    assert manifest.id == done["snapshot"]
    return Published(workspace, settings, manifest)


def test_a_live_snapshot_with_all_modalities(published: Published, bench: ModuleType) -> None:
    manifest = published.manifest
    assert set(manifest.kinds) == {"behaviour", "tabular", "search", "fused"}
    assert {entry.count for entry in manifest.kinds.values()} == {manifest.num_users} == {120}
    assert manifest.as_of == manifest.trained_as_of == bench.AS_OF
    assert (manifest.source, manifest.synthetic, manifest.horizon_days) == ("synthetic", True, 14)


def test_a_sentence_meets_every_user(published: Published) -> None:
    root = published.workspace.root
    encoder = QueryEncoder.open(root / published.manifest.checkpoints["alignment"].path)
    (query,) = encoder.encode(["will buy cat food in the next two weeks"])
    vectors = np.load(root / published.manifest.entry("fused").matrix)
    scores = vectors @ query
    assert scores.shape == (120,) and np.isfinite(scores).all() and len(set(scores.tolist())) > 60


def test_two_runs_in_fresh_workspaces_agree(published: Published, trained: Any) -> None:
    """Acceptance 4: same seed, same machine; line vectors computed anew in both."""
    for kind, entry in published.manifest.kinds.items():
        ours = np.load(published.workspace.root / entry.matrix)
        assert np.abs(ours - trained.matrix(kind)).max() <= 1e-5, kind
        assert ours.std() > 1e-3


def test_a_second_run_reuses_every_stage(
    published: Published, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    files = {
        path: path.stat().st_mtime_ns for path in published.workspace.root.rglob("*.safetensors")
    }
    started = time.perf_counter()
    again = pipeline.run(pipeline.Pipeline(**published.settings))
    assert time.perf_counter() - started < FAST_SECONDS
    assert again["snapshot"] == published.manifest.id
    out = capsys.readouterr().out
    for stage in ("ingest", "features", "samples", "train-behaviour", "train-tabular",
                  "train-search", "train-alignment", "embed"):  # fmt: skip
        assert f"{stage}: reused" in out, stage
    assert " done in " not in out
    assert files and files == {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize(
    "other", [{"source": "synthetic:users=50,seed=1,weeks=30"}, {"demographics": False}]
)
def test_a_workspace_refuses_another_data_set(published: Published, other: dict[str, Any]) -> None:
    before = (
        published.workspace.dataset_file.read_bytes(),
        SnapshotStore(published.workspace).live_id(),
    )
    with pytest.raises(
        InputError, match="workspace: .*holds synthetic:users=120.*another --workspace"
    ):
        pipeline.run(pipeline.Pipeline(**published.settings | other))
    after = (
        published.workspace.dataset_file.read_bytes(),
        SnapshotStore(published.workspace).live_id(),
    )
    assert after == before


@pytest.mark.parametrize("kind", ["fused", "tabular"])
def test_the_export_has_the_columns_of_the_contract(
    kind: str, published: Published, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "e.parquet"
    done = export.run(
        export.Export(workspace=published.settings["workspace"], kind=kind, out=str(out))
    )
    table, manifest = pq.read_table(out), published.manifest
    assert done == {"out": str(out), "rows": 120}
    fixed = pa.list_(pa.float32(), manifest.entry(kind).dim)
    assert table.schema.equals(
        pa.schema([
            ("user_id", pa.string()), ("embedding", fixed),
            ("space", pa.string()), ("snapshot", pa.string()), ("as_of", pa.timestamp("us", "UTC")),
        ])
    )  # fmt: skip
    users = pq.read_table(published.workspace.root / manifest.users)["user_id"]
    assert table["user_id"].equals(users) and len(set(users.to_pylist())) == 120
    vectors = np.stack(table["embedding"].to_numpy())
    assert np.array_equal(vectors, np.load(published.workspace.root / manifest.entry(kind).matrix))
    for name, value in (
        ("space", manifest.space),
        ("snapshot", manifest.id),
        ("as_of", manifest.as_of),
    ):
        assert set(table[name].to_pylist()) == {value}


def test_an_export_of_an_unknown_kind_names_the_known(published: Published, tmp_path: Path) -> None:
    with pytest.raises(MissingKind, match="behaviour, fused, search, tabular, got 'shopper_bert'"):
        export.run(
            export.Export(workspace=published.settings["workspace"], kind="shopper_bert",
                          out=str(tmp_path / "e.parquet"))
        )  # fmt: skip
    assert not (tmp_path / "e.parquet").exists()
