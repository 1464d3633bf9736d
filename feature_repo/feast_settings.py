"""How Feast is set up for a workspace, and what of it must not reach our users' terminals."""

from __future__ import annotations

import atexit
import warnings
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

import ibis
import yaml

from feature_repo.settings import WORKSPACE_VARIABLE, Workspace, redis_connection, redis_url


@cache
def hush() -> None:
    """Keep out of our users' terminals what these versions of Feast, ibis and DuckDB emit."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"(feast|ibis)\b")
    warnings.filterwarnings("ignore", message='Field name "vector_enabled" in "Milvus')
    atexit.register(_disconnect)


def _disconnect() -> None:
    """DuckDB 2.0 prints pages of "leaked instance" if ibis' connection is open at the exit."""
    if ibis.options.default_backend is not None:
        ibis.options.default_backend.disconnect()
        ibis.options.default_backend = None


def of(workspace: Workspace, registry: Path, *, keep: bool = False) -> dict[str, Any]:
    """``feature_store.yaml`` for one workspace, with the given registry file; for RepoConfig.

    Args:
        keep: what was read of the registry, for as long as the store lives. Feast changes what it
            has read and writes it in the end; reading it again in between forgets the changes.
    """
    text = (Path(__file__).parent / "feature_store.yaml").read_text()
    filled = Template(text).substitute({WORKSPACE_VARIABLE: str(workspace.root)})
    settings: dict[str, Any] = yaml.safe_load(filled)
    settings["registry"]["path"] = str(registry)
    if keep:
        settings["registry"]["cache_ttl_seconds"] = 0
    if url := redis_url():
        # Without skip_dedup Redis ignores rows older than its own: an earlier date never arrives.
        connection = redis_connection(url)
        settings["online_store"] = {
            "type": "redis",
            "connection_string": connection,
            "skip_dedup": True,
        }
    return {**settings, "repo_path": workspace.root}
