"""Publishing: collections, online rows, one atomic change; killed before it, nothing changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from feature_repo import publishing
from feature_repo.errors import UnknownSnapshot
from feature_repo.milvus_server import milvus
from feature_repo.snapshots import SnapshotStore
from feature_repo.store import FeatureStore
from feature_repo.vectors import Vectors
from ray_jobs.embed import Embed
from ray_jobs.embed import run as embed
from ray_jobs.publish import Publish, run

pytestmark = pytest.mark.milvus

KINDS = {"behaviour", "tabular", "search", "fused"}
LATER = "2024-06-24"

# Everything of a publication but the last step: the process dies where LIVE would change.
_KILLED = """
import os, signal, sys
from feature_repo import publishing
publishing.activate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from ray_jobs.embed import Embed, run as embed
from ray_jobs.publish import Publish, run as publish
record = embed(Embed(workspace=sys.argv[1], as_of=sys.argv[2]))
publish(Publish(workspace=sys.argv[1], snapshot=record["snapshot"]))
"""


def test_four_collections_and_views_hold_what_the_manifest_says(copy: Any) -> None:
    (manifest,) = SnapshotStore(copy.workspace).list()
    published = run(Publish(workspace=copy.root))
    assert published["snapshot"] == manifest.id == SnapshotStore(copy.workspace).live_id()
    assert published["online"] == {kind: entry.count for kind, entry in manifest.kinds.items()}
    assert set(manifest.kinds) == KINDS and manifest.num_users == 120
    store = FeatureStore(copy.workspace)
    with milvus(copy.workspace) as uri:
        vectors = Vectors(uri)
        assert len(vectors.list()) == 4
        for kind, entry in manifest.kinds.items():
            assert vectors.count(entry.collection) == entry.count == 120
            query = copy.matrix(kind)[7]
            ids, scores = vectors.search(entry.collection, query, 120)
            assert len(set(ids)) == 120
            assert scores[0] == pytest.approx(float((copy.matrix(kind) @ query).max()), rel=1e-4)
            found, online = store.online_embeddings(manifest, kind, ids[:9])
            assert found == ids[:9] and online.shape == (9, entry.dim)
        assert vectors.alias(publishing.ALIAS) == manifest.kinds["fused"].collection
    services = {service.name for service in store.feast.list_feature_services()}
    assert services == {"user_embeddings", "behaviour_embeddings", "tabular_embeddings",
                        "search_embeddings"}  # fmt: skip


def test_killed_before_activation_the_old_snapshot_serves_and_a_rerun_completes(
    copy: Any, bench: ModuleType
) -> None:
    first = run(Publish(workspace=copy.root))["snapshot"]
    store = SnapshotStore(copy.workspace)
    before = copy.workspace.live_file.read_bytes()
    package = str(Path(sys.modules["ray_jobs"].__path__[0]).parent)

    done = subprocess.run(
        [sys.executable, "-c", _KILLED, copy.root, LATER], capture_output=True, text=True,
        timeout=250, env={**os.environ, "PYTHONPATH": package},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    second = next(manifest for manifest in store.list() if manifest.id != first)
    assert copy.workspace.live_file.read_bytes() == before and store.live_id() == first
    features = FeatureStore(copy.workspace)
    features.apply()
    found, vectors = features.online_embeddings(store.live(), "fused", ["s1", "s5"])
    assert found == ["s1", "s5"]
    with milvus(copy.workspace) as uri:  # the dead process has let go of its Milvus
        held = Vectors(uri)
        assert held.alias(publishing.ALIAS) == store.live().kinds["fused"].collection
        assert held.count(store.live().kinds["fused"].collection) == 120

    again = embed(Embed(workspace=copy.root, as_of=LATER))["snapshot"]
    assert again == second.id  # what was embedded is not embedded again
    run(Publish(workspace=copy.root, snapshot=again))
    assert store.live_id() == second.id and store.history() == [second.id, first]
    with milvus(copy.workspace) as uri:
        held = Vectors(uri)
        assert held.alias(publishing.ALIAS) == second.kinds["fused"].collection
        assert {held.count(entry.collection) for entry in second.kinds.values()} == {120}
        publishing.rollback(copy.workspace, uri)
        assert store.live_id() == first
        assert held.alias(publishing.ALIAS) == store.live().kinds["fused"].collection
    assert np.array_equal(
        features.online_embeddings(store.live(), "fused", ["s1", "s5"])[1], vectors
    )


def test_an_unknown_snapshot_is_named(copy: Any) -> None:
    with pytest.raises(UnknownSnapshot, match="got 'nope'"):
        run(Publish(workspace=copy.root, snapshot="nope"))
    assert SnapshotStore(copy.workspace).live_id() is None
