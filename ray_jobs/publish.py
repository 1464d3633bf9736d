"""Make a committed snapshot live: online rows, Milvus collections, then the one atomic change.

    python -m ray_jobs.publish --workspace DIR [--snapshot ID]

Killed before the last step, the old snapshot still serves and the command can be given again.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from feature_repo import publishing
from feature_repo.errors import InputError
from feature_repo.milvus_server import milvus
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.store import FeatureStore
from feature_repo.vectors import Vectors
from ray_jobs.command import Job, console, main


class Publish(Job):
    """Publish a snapshot."""

    snapshot: str | None = Field(None, description="id; default the newest")
    keep: int = Field(5, ge=1, description="how many snapshots to keep")


def run(settings: Publish) -> dict[str, Any]:
    """Publish the snapshot and drop those beyond ``keep``."""
    workspace = settings.place
    snapshot = settings.snapshot
    if snapshot is None:
        known = SnapshotStore(workspace).list()
        if not known:
            raise InputError(
                f"snapshot: {workspace.root} has none; run `python -m ray_jobs.embed` first"
            )
        snapshot = known[0].id
    return publish(workspace, snapshot, keep=settings.keep)


def publish(workspace: Workspace, snapshot: str, *, keep: int = 5) -> dict[str, Any]:
    """Online rows and collections first, then ``LIVE``, then what is derived from it."""
    manifest = SnapshotStore(workspace).load(snapshot)
    store = FeatureStore(workspace)
    store.apply()
    rows = {kind: store.materialize(entry.view, manifest.as_of)
            for kind, entry in manifest.kinds.items()}  # fmt: skip
    views = ["behaviour_weekly", "profile_weekly"]
    if (workspace.features / "search_weekly").is_dir():
        views.append("search_weekly")
    for view in views:
        store.materialize(view, manifest.as_of)
    console.print(f"  online: {', '.join(f'{kind} {n:,}' for kind, n in rows.items())}")
    with milvus(workspace) as uri:
        publishing.load_collections(workspace, manifest, Vectors(uri))
        publishing.activate(workspace, snapshot, uri)
        dropped = publishing.prune(workspace, keep, uri)
    console.print(f"  live: [bold]{snapshot}[/] (space {manifest.space}, {manifest.num_users:,} "
                  f"users, as of {manifest.as_of:%Y-%m-%d})")  # fmt: skip
    return {"snapshot": snapshot, "online": rows, "dropped": dropped}


if __name__ == "__main__":
    main(Publish, run)
