"""Maps of the embedding space, drawn in the background the first time that somebody looks."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

from feature_repo import durable
from feature_repo.embedding_map import EmbeddingMap, open_map
from feature_repo.manifest import Manifest
from feature_repo.settings import Workspace

log = logging.getLogger(__name__)


class Maps:
    """The maps of a workspace's snapshots; safe to share between threads and processes."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._drawn: dict[tuple[str, str], EmbeddingMap | None] = {}  # None: at it
        self._failed: set[tuple[str, str]] = set()

    def get(self, manifest: Manifest, kind: str) -> EmbeddingMap | None:
        """The map of one kind of a snapshot; None while it is drawn, which this begins."""
        key = manifest.id, kind
        with self._lock:
            if key in self._drawn:
                return self._drawn[key]
            self._drawn = {key: open_map(self._workspace, manifest, kind)}
            if self._drawn[key] is None:
                threading.Thread(target=self._draw, args=(manifest, kind), daemon=True).start()
            return self._drawn[key]

    def failed(self, manifest: Manifest, kind: str) -> bool:
        """Whether it could not be drawn; the log says why."""
        return (manifest.id, kind) in self._failed

    def _draw(self, manifest: Manifest, kind: str) -> None:
        key = manifest.id, kind
        try:
            with durable.locked(self._workspace.cache / f"map-{manifest.id}-{kind}.lock"):
                # Another process may have drawn it meanwhile.
                found = open_map(self._workspace, manifest, kind)
                if found is None:
                    _run(self._workspace, manifest, kind)
                    found = open_map(self._workspace, manifest, kind)
        except (OSError, subprocess.CalledProcessError) as error:
            told = getattr(error, "stderr", None) or error
            log.error("the map of snapshot %s cannot be drawn: %s", manifest.id, told)
            self._failed.add(key)
            return
        with self._lock:
            if key in self._drawn:
                self._drawn[key] = found


def _run(workspace: Workspace, manifest: Manifest, kind: str) -> None:
    """Draw it in a process of its own: in ours it would hold up every answer meanwhile."""
    subprocess.run(
        [sys.executable, "-m", "feature_repo.embedding_map", "--workspace", str(workspace.root),
         "--snapshot", manifest.id, "--kind", kind],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, text=True,
    )  # fmt: skip
