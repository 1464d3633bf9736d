"""Where everything of one workspace lies, and which outer stores the environment names.

A workspace is one directory. Constructing a :class:`Workspace` only computes paths; whoever
writes creates the directory it writes into.

    dataset.json                          the data set: its tables and its weekly views
    tables/<key>/                         canonical tables, as they were ingested
    features/<key>/<view>/part-*.parquet  weekly rows of those tables, immutable parts
    snapshots/<id>/                       embeddings, matrices, users, manifest.json
    prompts/<id>/                         tuned prompts
    audiences/<id>/                       members of saved audiences
    openfound.db                          what people saved, unless another database is named
    LIVE                                  which snapshot is live; the only truth about it
    feast/                                registry.db and online.db, derived
    milvus/                               Milvus Lite's data, address and log, derived
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from feature_repo.errors import InputError

WORKSPACE_VARIABLE: Final = "OPENFOUND_WORKSPACE"
MILVUS_VARIABLE: Final = "OPENFOUND_MILVUS_URI"
REDIS_VARIABLE: Final = "OPENFOUND_REDIS_URL"
DEFAULT_WORKSPACE: Final = "./workspace"


@dataclass(frozen=True)
class Workspace:
    """Paths below one root directory; ``root`` is made absolute here, nothing is created."""

    root: Path

    def __post_init__(self) -> None:
        root = Path(self.root).expanduser().resolve()
        if root.exists() and not root.is_dir():
            raise InputError(
                f"workspace: expected a directory, got the file {root}; "
                f"name another one with --workspace or {WORKSPACE_VARIABLE}"
            )
        object.__setattr__(self, "root", root)

    @classmethod
    def from_env(cls, root: str | Path | None = None) -> Workspace:
        """``root`` if given, else ``OPENFOUND_WORKSPACE``, else ``./workspace``."""
        return cls(Path(root or os.environ.get(WORKSPACE_VARIABLE) or DEFAULT_WORKSPACE))

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def features(self) -> Path:
        """The weekly views of the present tables, a directory each; ``dataset.json`` says where.

        Workspaces from before each set of tables had views of its own hold them in ``features``.
        """
        held: dict[str, str] = {}
        with suppress(FileNotFoundError):
            held = json.loads(self.dataset_file.read_bytes())
        return self.root / held.get("features", "features")

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def rewriter(self) -> Path:
        """The language model that was tuned to read demands."""
        return self.checkpoints / "rewriter"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    @property
    def prompts(self) -> Path:
        return self.root / "prompts"

    @property
    def audiences(self) -> Path:
        """Members of saved audiences."""
        return self.root / "audiences"

    @property
    def scores(self) -> Path:
        """What downstream teams handed back, a directory for each name."""
        return self.root / "scores"

    @property
    def live_file(self) -> Path:
        return self.root / "LIVE"

    @property
    def feast(self) -> Path:
        return self.root / "feast"

    @property
    def milvus(self) -> Path:
        return self.root / "milvus"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def dataset_file(self) -> Path:
        return self.root / "dataset.json"


def milvus_uri() -> str | None:
    """The Milvus that the environment names, or None: then the workspace's own Lite is used."""
    return os.environ.get(MILVUS_VARIABLE) or None


def redis_url() -> str | None:
    """The Redis that the environment names as online store, or None: then SQLite is used."""
    return os.environ.get(REDIS_VARIABLE) or None


def redis_connection(url: str) -> str:
    """Feast's own spelling of ``redis[s]://[[user]:password@]host[:port][/db]``."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise InputError(f"{REDIS_VARIABLE}: expected redis://host:6379/0, got {parts.scheme}://…")
    words = [f"{parts.hostname}:{parts.port or 6379}", f"db={parts.path.strip('/') or 0}"]
    words += [f"username={parts.username}"] if parts.username else []
    words += [f"password={parts.password}"] if parts.password else []
    words += ["ssl=True"] if parts.scheme == "rediss" else []
    return ",".join(words)
