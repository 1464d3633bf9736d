import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from feature_repo import publishing
from feature_repo.errors import ManifestError, NoLiveSnapshot, UnknownSnapshot
from feature_repo.matrix import Matrix
from feature_repo.milvus_server import milvus
from feature_repo.settings import Workspace
from feature_repo.snapshots import Manifest, SnapshotStore
from feature_repo.store import FeatureStore, open_feature_store
from feature_repo.vectors import Vectors

Publish = Callable[..., Manifest]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with milvus(Workspace(tmp_path_factory.mktemp("milvus"))) as uri:
        yield uri


@pytest.fixture
def vectors(uri: str) -> Iterator[Vectors]:
    vectors = Vectors(uri)
    yield vectors
    for collection in vectors.list():
        vectors.drop(collection)


@pytest.fixture
def two(workspace: Workspace, publish: Publish) -> tuple[Manifest, Manifest]:
    """Two snapshots of one space, a week apart, with every embedding online."""
    manifests = publish(3, seed=1), publish(4, seed=2)
    store = open_feature_store(workspace)
    store.apply()
    for manifest in manifests:
        for entry in manifest.kinds.values():
            store.materialize(entry.view, manifest.as_of)
    return manifests


def matrix_of(history: pd.DataFrame | dict[str, list], column: str) -> np.ndarray:
    return np.array([np.asarray(row, dtype=np.float32) for row in history[column]])


def read_service(
    store: FeatureStore, tiny: ModuleType, at: object, kind: str = "fused"
) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """What a downstream team sees: history and online reads through the feature service."""
    service = "user_embeddings" if kind == "fused" else f"{kind}_embeddings"
    column = f"{kind}_embedding__embedding"
    feast = store.feast
    feast.refresh_registry()
    asked = pd.DataFrame({"user_id": tiny.USERS, "event_timestamp": at})
    history = feast.get_historical_features(
        entity_df=asked, features=feast.get_feature_service(service), full_feature_names=True
    ).to_df()
    history = history.set_index("user_id").loc[tiny.USERS].reset_index()
    online = feast.get_online_features(
        features=feast.get_feature_service(service),
        entity_rows=[{"user_id": user} for user in tiny.USERS],
        full_feature_names=True,
    ).to_dict()
    assert online["user_id"] == tiny.USERS
    snapshots = {*history[f"{kind}_embedding__snapshot"], *online[f"{kind}_embedding__snapshot"]}
    return matrix_of(history, column), matrix_of(online, column), snapshots


def test_the_service_switches_history_and_online_under_one_name(
    workspace: Workspace, two: tuple[Manifest, Manifest], tiny: ModuleType
) -> None:
    first, second = two
    store = open_feature_store(workspace)
    later = second.as_of + timedelta(days=20)  # embeddings stay valid until there are newer ones

    for act, live, seed in (
        (lambda: publishing.activate(workspace, first.id), first, 1),
        (lambda: publishing.activate(workspace, second.id), second, 2),
        (lambda: publishing.rollback(workspace), first, 1),
    ):
        assert act() == live
        for kind in tiny.KINDS:
            history, online, snapshots = read_service(store, tiny, later, kind)
            np.testing.assert_array_equal(history, tiny.vectors_of(seed, kind))
            np.testing.assert_array_equal(online, history)
            assert snapshots == {live.id}


def test_short_names_and_earlier_dates_of_the_space(
    workspace: Workspace, two: tuple[Manifest, Manifest], tiny: ModuleType
) -> None:
    first, second = two
    publishing.activate(workspace, second.id)
    store = open_feature_store(workspace)
    history, online, snapshots = read_service(store, tiny, first.as_of)
    np.testing.assert_array_equal(history, tiny.vectors_of(1, "fused"))
    np.testing.assert_array_equal(online, tiny.vectors_of(2, "fused"))
    assert snapshots == {first.id, second.id}
    frame = store.feast.get_historical_features(
        entity_df=pd.DataFrame({"user_id": ["1"], "event_timestamp": [first.as_of]}),
        features=store.feast.get_feature_service("user_embeddings"),
    ).to_df()
    assert {"embedding", "space", "snapshot"} <= set(frame.columns)


def test_a_store_that_is_open_sees_the_switch_within_seconds(
    workspace: Workspace, two: tuple[Manifest, Manifest], tiny: ModuleType
) -> None:
    """It never refreshes by itself: the registry's cache lives one second."""
    first, second = two
    publishing.activate(workspace, first.id)
    reader = open_feature_store(workspace)
    read_service(reader, tiny, first.as_of)
    publishing.activate(workspace, second.id)
    deadline = pd.Timestamp.now() + pd.Timedelta(seconds=5)
    while True:
        service = reader.feast.get_feature_service("user_embeddings", allow_cache=True)
        if service.feature_view_projections[0].name == second.kinds["fused"].view:
            break
        assert pd.Timestamp.now() < deadline, "the switch never shows"


@pytest.mark.milvus
def test_four_collections_with_the_counts_of_the_manifest(
    workspace: Workspace, two: tuple[Manifest, Manifest], vectors: Vectors, tiny: ModuleType
) -> None:
    first, second = two
    publishing.activate(workspace, first.id, vectors.uri)
    assert vectors.alias("user_embeddings") == first.kinds["fused"].collection
    publishing.activate(workspace, second.id, vectors.uri)
    assert vectors.alias("user_embeddings") == second.kinds["fused"].collection
    for manifest in two:
        for kind, entry in manifest.kinds.items():
            assert vectors.count(entry.collection) == entry.count
            query = tiny.vectors_of(9, kind)[0]
            expected, exact = Matrix.open(manifest, kind, workspace).scan(query, 20)
            ids, scores = vectors.search(entry.collection, query, 20)
            assert ids == expected
            np.testing.assert_allclose(scores, exact, atol=1e-5)
    assert len(vectors.list()) == 8

    publishing.rollback(workspace, vectors.uri)
    assert vectors.alias("user_embeddings") == first.kinds["fused"].collection


@pytest.mark.milvus
def test_missing_and_incomplete_collections_are_filled(
    workspace: Workspace, two: tuple[Manifest, Manifest], vectors: Vectors
) -> None:
    manifest = two[0]
    everything = [entry.collection for entry in manifest.kinds.values()]
    assert publishing.load_collections(workspace, manifest, vectors) == everything
    assert publishing.load_collections(workspace, manifest, vectors) == []
    half = manifest.kinds["tabular"]
    rows = Matrix.open(manifest, "tabular", workspace)
    vectors.create(
        half.collection, rows.ids[:30], rows.vectors[:30], space="x", as_of=manifest.as_of
    )
    vectors.drop(manifest.kinds["search"].collection)
    repaired = publishing.load_collections(workspace, manifest, vectors)
    assert set(repaired) == {half.collection, manifest.kinds["search"].collection}
    assert vectors.count(half.collection) == half.count


@pytest.mark.milvus
def test_killed_between_live_and_the_rest_derive_heals(
    workspace: Workspace,
    two: tuple[Manifest, Manifest],
    vectors: Vectors,
    tiny: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = two
    publishing.activate(workspace, first.id, vectors.uri)

    class Killed(BaseException):
        """Not caught by anything, so that nothing is tidied up."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(publishing, "derive", die)
        publishing.activate(workspace, second.id, vectors.uri)

    store = open_feature_store(workspace)
    assert SnapshotStore(workspace).live_id() == second.id
    assert read_service(store, tiny, second.as_of)[2] == {first.id}, "killed before the rest"
    assert vectors.alias("user_embeddings") == first.kinds["fused"].collection

    assert publishing.derive(workspace, vectors.uri) == second
    assert read_service(store, tiny, second.as_of)[2] == {second.id}
    assert vectors.alias("user_embeddings") == second.kinds["fused"].collection


def test_without_milvus_the_switch_takes_place_and_is_told(
    workspace: Workspace,
    two: tuple[Manifest, Manifest],
    tiny: ModuleType,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        publishing.activate(workspace, two[1].id, "http://127.0.0.1:1")
    assert "user_embeddings does not follow LIVE yet: nothing answers at" in caplog.text
    store = open_feature_store(workspace)
    assert read_service(store, tiny, two[1].as_of)[2] == {two[1].id}


def test_a_changed_matrix_does_not_go_live(
    workspace: Workspace, two: tuple[Manifest, Manifest]
) -> None:
    first, second = two
    publishing.activate(workspace, first.id)
    path = workspace.root / second.kinds["fused"].matrix
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"fused.npy is missing or differs from the hash"):
        publishing.activate(workspace, second.id)
    path.unlink()
    with pytest.raises(ManifestError, match=r"fused.npy is missing or differs"):
        publishing.activate(workspace, second.id)
    assert SnapshotStore(workspace).live_id() == first.id


def test_nothing_to_derive_or_to_roll_back_to(workspace: Workspace, publish: Publish) -> None:
    with pytest.raises(NoLiveSnapshot):
        publishing.derive(workspace)
    with pytest.raises(UnknownSnapshot):
        publishing.activate(workspace, "nope")
    publishing.activate(workspace, publish(1, seed=1).id)
    with pytest.raises(UnknownSnapshot, match="nothing to roll back to"):
        publishing.rollback(workspace)


@pytest.mark.milvus
def test_prune_drops_old_snapshots_everywhere(
    workspace: Workspace,
    two: tuple[Manifest, Manifest],
    publish: Publish,
    vectors: Vectors,
    tiny: ModuleType,
) -> None:
    first, second = two
    third = publish(5, seed=3)
    for manifest in (first, second, third):
        publishing.activate(workspace, manifest.id, vectors.uri)
    dropped = publishing.prune(workspace, 1, vectors.uri)
    assert set(dropped) == {entry.collection for entry in first.kinds.values()}
    kept = {entry.collection for m in (second, third) for entry in m.kinds.values()}
    assert set(vectors.list()) == kept
    views = {view.name for view in open_feature_store(workspace).feast.list_feature_views()}
    assert not views & {entry.view for entry in first.kinds.values()}
    assert not os.path.exists(workspace.snapshots / first.id)
    store = open_feature_store(workspace)
    history = read_service(store, tiny, first.as_of)[0]
    np.testing.assert_array_equal(history, tiny.vectors_of(1, "fused"))
