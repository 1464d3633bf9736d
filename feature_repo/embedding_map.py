"""A snapshot's embedding space as a picture: users in two dimensions, and clusters with names.

At most :data:`MAX_POINTS` users are drawn, every n-th, so that equal snapshots give equal pictures.
Positions are a t-SNE of their vectors (van der Maaten and Hinton, 2008), begun from the principal
components; clusters are k-means in the space itself. A cluster is named after the subjects of the
catalogue that its users bought, clicked or browsed most beyond the others, read from the snapshot's
facts, which hold nothing known at or after its ``as_of``.

Drawing takes about 10 s for 2,500 users and 30 s for 5,000 on one thread, which it does not share:
whoever answers meanwhile runs it as a process of its own.

    python -m feature_repo.embedding_map --workspace DIR --snapshot ID --kind fused
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from feature_repo import durable
from feature_repo.distinguishing import distinguishing
from feature_repo.manifest import Manifest
from feature_repo.matrix import Matrix
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore

MAX_POINTS: Final = 5_000
RECENT_DAYS: Final = 56
_CLUSTERS: Final = 9
_COMPONENTS: Final = 32
_PERPLEXITY: Final = 40.0
_NAMES: Final = 2
_LEAST_SHARE: Final = 0.12
"""Share of a cluster that must have done what it is named after."""
_LIFT: Final = 1.25
_LOOKED_AT: Final = 40
QUIET: Final = "Little activity lately"

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingMap:
    """P users: their ids, ``xy`` [P, 2] within -1 … 1, and ``cluster`` [P]; names by cluster."""

    users: pa.Array
    xy: _Floats
    cluster: npt.NDArray[np.int32]
    names: list[str]


def open_map(workspace: Workspace, manifest: Manifest, kind: str) -> EmbeddingMap | None:
    """The map of one kind as it was kept; None if none was drawn yet, or it cannot be read."""
    try:
        table = pq.read_table(_path(workspace, manifest, kind))
        names = (table.schema.metadata or {})[b"names"].decode().split("\n")
        xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
        users = table["user_id"].combine_chunks()
        return EmbeddingMap(users, xy, table["cluster"].to_numpy(), names)
    except (OSError, pa.ArrowInvalid, KeyError):
        return None  # it is drawn again: nothing else is kept in it


def draw_map(workspace: Workspace, manifest: Manifest, kind: str) -> EmbeddingMap:
    """Draw the map of one kind, and keep it beside the snapshot in one step."""
    matrix = Matrix.open(manifest, kind, workspace)
    warm = np.flatnonzero(matrix.warm)
    rows = warm[:: max(1, -(-len(warm) // MAX_POINTS))]
    vectors = np.asarray(matrix.vectors[rows])
    with threadpool_limits(1):  # OpenMP's threads wait by spinning: others need the cores
        cluster, xy = _clusters(vectors), _positions(vectors)
    names = _names(workspace, manifest, rows, cluster)
    drawn = EmbeddingMap(matrix.users.take(pa.array(rows)), xy, cluster, names)
    table = pa.table(
        {"user_id": drawn.users, "x": drawn.xy[:, 0], "y": drawn.xy[:, 1], "cluster": cluster}
    )
    with durable.replacing(_path(workspace, manifest, kind)) as temporary:
        pq.write_table(table.replace_schema_metadata({"names": "\n".join(names)}), temporary)
    return drawn


def _path(workspace: Workspace, manifest: Manifest, kind: str) -> Path:
    # Beside the matrix, so that whatever removes a snapshot removes its map.
    return (workspace.root / manifest.entry(kind).matrix).with_name(f"{kind}.map.parquet")


def _positions(vectors: _Floats) -> _Floats:
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count = len(vectors)
    if count < 5:  # too few to have neighbours
        return np.stack([np.linspace(-1, 1, count), np.zeros(count)], axis=1).astype(np.float32)
    width = min(_COMPONENTS, *vectors.shape)
    reduced = PCA(width, random_state=0).fit_transform(vectors)
    tsne = TSNE(perplexity=min(_PERPLEXITY, (count - 1) / 3), init="pca", random_state=0, n_jobs=1)
    placed = tsne.fit_transform(reduced)
    placed -= (placed.min(axis=0) + placed.max(axis=0)) / 2
    scaled: _Floats = (placed / max(float(np.abs(placed).max()), 1e-9)).astype(np.float32)
    return scaled


def _clusters(vectors: _Floats) -> npt.NDArray[np.int32]:
    """k-means; clusters are numbered from the largest."""
    from sklearn.cluster import KMeans

    count = max(1, min(_CLUSTERS, len(vectors) // 20))
    found = KMeans(count, n_init=4, random_state=0).fit_predict(vectors)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    renamed = np.empty(count, np.int32)
    renamed[order] = np.arange(count, dtype=np.int32)
    numbered: npt.NDArray[np.int32] = renamed[found]
    return numbered


def _names(
    workspace: Workspace,
    manifest: Manifest,
    rows: npt.NDArray[np.int64],
    cluster: npt.NDArray[np.int32],
) -> list[str]:
    """What each cluster's users did lately that others did not, in words of the catalogue."""
    names: list[str] = []
    for number in range(int(cluster.max()) + 1):
        if manifest.facts is None:
            names.append(f"Group {number + 1}")
            continue
        members = rows[cluster == number]
        found = distinguishing(workspace, manifest, members, days=RECENT_DAYS, num=_LOOKED_AT)
        said = [one.subject for one in found if one.share >= _LEAST_SHARE and one.lift >= _LIFT]
        names.append(" · ".join(_distinct(said, names)) or _numbered(QUIET, names))
    return names


def _numbered(name: str, taken: list[str]) -> str:
    count = sum(other.startswith(name) for other in taken)
    return f"{name} ({count + 1})" if count else name


def _distinct(subjects: list[str], taken: list[str]) -> list[str]:
    """The first few, without those that say another, or a name taken, in other words."""
    chosen: list[str] = []
    before = " · ".join(taken).lower()
    for name in subjects:
        said = " ".join(name.lower().replace("/", " / ").split())
        heads = {word[:4] for word in said.split() if len(word) > 2}
        new = all(heads.isdisjoint({w[:4] for w in other.split()}) for other in chosen)
        if new and said not in before:
            chosen.append(said)
        if len(chosen) == _NAMES:
            break
    return [name[:1].upper() + name[1:] for name in chosen]


def main(arguments: list[str] | None = None) -> None:
    """The command line: draw one map."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("workspace", "snapshot", "kind"):
        parser.add_argument(f"--{name}", required=True)
    asked = parser.parse_args(arguments)
    workspace = Workspace(Path(asked.workspace))
    draw_map(workspace, SnapshotStore(workspace).load(asked.snapshot), asked.kind)


if __name__ == "__main__":
    main()
