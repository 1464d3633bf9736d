"""What derives from LIVE: the feature services in Feast and the alias in Milvus.

``LIVE`` is replaced first, in one step; then both are brought in line with it. ``derive`` may be
repeated at any time and is, at every start of serving, so a kill between the steps heals itself.

    with milvus(workspace) as uri:
        activate(workspace, snapshot_id, uri)
"""

from __future__ import annotations

import logging
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo import durable
from feature_repo.errors import ManifestError, VectorsUnavailable
from feature_repo.manifest import KindEntry, Manifest
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.store import FeatureStore
from feature_repo.vectors import Vectors, filterable

ALIAS: Final = "user_embeddings"
_ALIASED: Final = "fused"

log = logging.getLogger(__name__)


def activate(workspace: Workspace, snapshot_id: str, vectors_uri: str | None = None) -> Manifest:
    """Make one snapshot live and derive the rest. Its matrices are checked against their hashes."""
    store = SnapshotStore(workspace)
    manifest = store.load(snapshot_id)
    check_matrices(workspace, manifest)
    store.activate(snapshot_id)
    derive(workspace, vectors_uri)
    return manifest


def rollback(workspace: Workspace, vectors_uri: str | None = None) -> Manifest:
    """Make the snapshot before the live one live again and derive the rest."""
    SnapshotStore(workspace).rollback()
    return derive(workspace, vectors_uri)


def derive(workspace: Workspace, vectors_uri: str | None = None) -> Manifest:
    """Bring Feast's services and Milvus' alias in line with LIVE; returns the live manifest.

    Milvus is left alone without ``vectors_uri``, and may be away, since the scan stands in for it:
    that is logged, and its alias follows at the next start of serving.
    """
    manifest = SnapshotStore(workspace).live()
    FeatureStore(workspace).apply()
    if vectors_uri is not None:
        try:
            _derive_vectors(workspace, manifest, Vectors(vectors_uri))
        except VectorsUnavailable as error:
            log.warning("the alias %s does not follow LIVE yet: %s", ALIAS, error)
    return manifest


def load_collections(workspace: Workspace, manifest: Manifest, vectors: Vectors) -> list[str]:
    """Fill what is missing or incomplete in Milvus from the matrices; returns the collections."""
    kinds = manifest.kinds.values()
    short = [e for e in kinds if vectors.count(e.collection) != e.count - e.cold]
    for entry in short:
        _load(workspace, manifest, entry, vectors)
        log.info("filled %s with %d rows", entry.collection, entry.count - entry.cold)
    return [entry.collection for entry in short]


def prune(workspace: Workspace, keep: int, vectors_uri: str | None = None) -> list[str]:
    """Drop old snapshots everywhere; returns the collections that were theirs.

    Never the live one nor the one before it. Feast's views and online rows go with their manifests.
    """
    collections = SnapshotStore(workspace).prune(keep)
    if collections:
        FeatureStore(workspace).apply()
    if vectors_uri is not None:
        vectors = Vectors(vectors_uri)
        for collection in collections:
            vectors.drop(collection)
    return collections


def check_matrices(workspace: Workspace, manifest: Manifest) -> None:
    """Raise :class:`ManifestError` if a matrix or the facts are not what the manifest names."""
    named = [(entry.matrix, entry.matrix_sha256) for entry in manifest.kinds.values()]
    named += [(file.path, file.sha256) for file in manifest.other_files]
    for relative, sha256 in named:
        path = workspace.root / relative
        if not path.is_file() or durable.sha256(path) != sha256:
            raise ManifestError(
                f"{path} is missing or differs from the hash in the manifest of {manifest.id}; "
                f"restore it, or publish the snapshot again"
            )


def _derive_vectors(workspace: Workspace, manifest: Manifest, vectors: Vectors) -> None:
    load_collections(workspace, manifest, vectors)
    if entry := manifest.kinds.get(_ALIASED):
        vectors.set_alias(ALIAS, entry.collection)
    else:  # or outsiders would go on reading what is no longer live
        vectors.drop_alias(ALIAS)


def _load(workspace: Workspace, manifest: Manifest, entry: KindEntry, vectors: Vectors) -> None:
    """The warm rows: a search then needs no filter to leave cold users out."""
    matrix = Matrix.open(manifest, entry.kind, workspace)
    metadata = filterable(pq.read_table(workspace.root / manifest.users))
    vectors.create(
        entry.collection,
        matrix.users.filter(pa.array(matrix.warm)).to_pylist(),
        matrix.vectors[matrix.warm] if matrix.cold else matrix.vectors,
        space=manifest.space,
        as_of=manifest.as_of,
        metadata=metadata.filter(pa.array(matrix.warm)),
    )
