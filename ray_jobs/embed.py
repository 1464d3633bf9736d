"""Batch embedding: a checkpoint's space, written for one date or a range of dates.

    python -m ray_jobs.embed --as-of 2017-11-06 --workspace DIR
    python -m ray_jobs.embed --dates 2017-08-14:2017-11-06:7d --workspace DIR

Leaves a committed snapshot that is not live yet: `python -m ray_jobs.publish` makes it so. A date
before the weights were trained is refused, since such weights have seen its outcome.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from encoders import checkpoint
from encoders.alignment import FoundModel
from feature_repo import durable
from feature_repo.errors import InputError
from feature_repo.facts import write_facts
from feature_repo.manifest import FactsEntry, FileEntry
from feature_repo.matrix import Matrix
from feature_repo.schema import EMBEDDING, TIMESTAMP
from feature_repo.settings import Workspace
from feature_repo.snapshots import (
    CheckpointEntry,
    KindEntry,
    Manifest,
    SnapshotStore,
    check_space_dates,
    collection_name,
    part_name,
    view_name,
)
from feature_repo.store import FeatureStore
from feature_repo.transforms import micros, open_tables
from ray_jobs.build_features import Dataset, build, read_dataset
from ray_jobs.calibration import calibrate, earlier
from ray_jobs.command import Date, Job, console, main, parse_date
from ray_jobs.space import Space, embed_at, open_space
from ray_jobs.stages import run_stage


class Embed(Job):
    """Embed every user known before a date, or before each of several dates."""

    checkpoint: str | None = Field(
        None, description="default the latest alignment, or else shopper_bert, checkpoint"
    )
    beside: list[str] = Field(
        [], description="checkpoint of another model whose embedding joins the snapshot; may repeat"
    )
    as_of: Date | None = Field(None, description="one date")
    dates: str | None = Field(None, description="FIRST:LAST:STEP, e.g. 2017-08-14:2017-11-06:7d")


def run(settings: Embed) -> dict[str, Any]:
    """Embed and commit a snapshot; returns the stage's record (``snapshot`` is its id)."""
    workspace = settings.place
    named = settings.checkpoint or latest_checkpoint(workspace, "alignment", "shopper_bert")
    directory = Path(named).resolve()
    beside = [Path(each).resolve() for each in settings.beside]
    return embed(workspace, read_dataset(workspace), directory, parse_dates(settings), beside)


def embed(
    workspace: Workspace,
    dataset: Dataset,
    directory: Path,
    dates: Sequence[datetime],
    beside: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write all kinds of the checkpoints' space at ``dates``; the last one gets the matrices."""
    for each in (directory, *beside):
        check_space_dates(parse_date(checkpoint.read_info(each).trained_as_of), dates)
    for anchor in _anchors(dates):
        build(workspace, dataset, anchor)
    space = open_space(workspace, [directory, *beside])

    def work(key: str) -> dict[str, Any]:
        store = SnapshotStore(workspace)
        snapshot = store.new_id(space.id, dates[-1])
        staged = store.stage(snapshot)
        vectors: dict[str, np.ndarray] = {}
        users: list[str] = []
        for date in dates:
            users, vectors = embed_at(workspace, dataset, space, date)
            for kind, matrix in vectors.items():
                path = staged / "embeddings" / kind / part_name(date)
                _write_part(path, users, matrix, date, space, snapshot)
            console.print(f"  {date:%Y-%m-%d}: {len(users):,} users × {', '.join(vectors)}")
        earlier = store.link_earlier_parts(snapshot, space=space.id, before=dates[0])
        pq.write_table(pa.table({"user_id": users}), staged / "users.parquet")
        kinds = {
            kind: _write_kind(staged, snapshot, kind, matrix, dates, earlier.get(kind, []))
            for kind, matrix in vectors.items()
        }
        facts = _write_facts(workspace, dataset, staged, users, dates[-1])
        calibration = _calibrated(workspace, dataset, space, staged, dates[-1])
        store.commit(_manifest(workspace, dataset, space, snapshot, dates[-1], kinds, len(users),
                               facts, calibration))  # fmt: skip
        return {"snapshot": snapshot, "outputs": [f"snapshots/{snapshot}/manifest.json"],
                "num_users": len(users)}  # fmt: skip

    learnt_from = [m.id for m in earlier(workspace, dates[-1], space.horizon_days)]
    inputs = [space.id, space.fingerprint, dataset.tables, [d.isoformat() for d in dates], "facts",
              learnt_from]  # fmt: skip
    return run_stage(workspace, "embed", inputs, work)


def latest_checkpoint(workspace: Workspace, *stages: str) -> Path:
    """The checkpoint that was trained last of the first of these stages that was trained at all."""
    for stage in stages or ("alignment",):
        records = (workspace.root / "stages").glob(f"train-{stage}-*.json")
        newest = max(records, key=lambda path: path.stat().st_mtime, default=None)
        if newest is not None:
            return workspace.root / json.loads(newest.read_bytes())["checkpoint"]
    raise InputError(
        f"checkpoint: {workspace.root} has none yet; run `python -m ray_jobs.train --stage "
        "alignment …` or name one with --checkpoint"
    )


def parse_dates(settings: Embed) -> list[datetime]:
    """Ascending dates from ``--as-of`` or ``--dates``."""
    if (settings.as_of is None) == (settings.dates is None):
        raise InputError("dates: give either --as-of DATE or --dates FIRST:LAST:STEP")
    if settings.as_of is not None:
        return [settings.as_of]
    match = re.fullmatch(r"([^:]+):([^:]+):(\d+)d", settings.dates or "")
    if match is None or int(match[3]) < 1:
        raise InputError(
            f"dates: expected FIRST:LAST:STEP such as 2017-08-14:2017-11-06:7d, got "
            f"{settings.dates!r}"
        )
    try:
        first, last = parse_date(match[1]), parse_date(match[2])
    except ValueError as error:
        raise InputError(f"dates: {error}") from None
    if last < first:
        raise InputError(f"dates: {match[2]} lies before {match[1]}")
    step = timedelta(days=int(match[3]))
    return [first + step * k for k in range((last - first) // step + 1)]


def _anchors(dates: Sequence[datetime]) -> list[datetime]:
    """One build covers all dates that are whole weeks before it: the last of each weekday."""
    last: dict[int, datetime] = {}
    for date in dates:
        last[micros(date) % (7 * 86_400_000_000)] = date
    return sorted(last.values())


def _write_part(
    path: Path, users: list[str], matrix: np.ndarray, date: datetime, space: Space, snapshot: str
) -> None:
    n, dim = matrix.shape
    when = pa.array([date] * n, TIMESTAMP)
    columns = {
        "user_id": pa.array(users),
        "event_timestamp": when,
        "created": when,
        "embedding": pa.ListArray.from_arrays(
            pa.array(np.arange(n + 1) * dim, pa.int32()), pa.array(matrix.reshape(-1))
        ),
        "space": pa.array([space.id] * n),
        "snapshot": pa.array([snapshot] * n),
        "trained_as_of": pa.array([space.trained_as_of] * n, TIMESTAMP),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=EMBEDDING), path, coerce_timestamps="us")


def _write_kind(
    staged: Path, snapshot: str, kind: str, matrix: np.ndarray, dates: Sequence[datetime],
    earlier: list[str],
) -> KindEntry:  # fmt: skip
    home = f"snapshots/{snapshot}"
    path = staged / "matrix" / f"{kind}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    Matrix.write(path, matrix)
    parts = [f"{home}/embeddings/{kind}/{part_name(date)}" for date in dates]
    return KindEntry(
        kind=kind, dim=matrix.shape[1], count=len(matrix), cold=int((~matrix.any(1)).sum()),
        parts=[*earlier, *parts],
        view=view_name(kind, snapshot), collection=collection_name(kind, snapshot),
        matrix=f"{home}/matrix/{kind}.npy", matrix_sha256=durable.sha256(path),
    )  # fmt: skip


def _write_facts(
    workspace: Workspace, dataset: Dataset, staged: Path, users: list[str], as_of: datetime
) -> FactsEntry:
    """What rules are checked against: profiles and behaviour of the users at ``as_of``."""
    asked = pa.table(
        {"user_id": users, "event_timestamp": pa.array([as_of] * len(users), TIMESTAMP)}
    )
    profiles = FeatureStore(workspace).history("profile_weekly", asked)
    con = open_tables(workspace.root / dataset.tables)
    try:
        return write_facts(con, profiles, users, as_of, staged, f"snapshots/{staged.name}")
    finally:
        con.close()


def _calibrated(
    workspace: Workspace, dataset: Dataset, space: Space, staged: Path, as_of: datetime
) -> FileEntry | None:
    """What earlier snapshots teach about the scores of sentences, where there are sentences."""
    aligned = space.parts.get("alignment")
    if aligned is None:
        return None
    model = cast(FoundModel, aligned.model)
    return calibrate(
        workspace, workspace.root / dataset.tables, as_of, staged,
        scale=model.scale, horizon_days=space.horizon_days,
    )  # fmt: skip


def _manifest(
    workspace: Workspace, dataset: Dataset, space: Space, snapshot: str, as_of: datetime,
    kinds: dict[str, KindEntry], num_users: int, facts: FactsEntry,
    calibration: FileEntry | None,
) -> Manifest:  # fmt: skip
    return Manifest(
        id=snapshot, space=space.id, as_of=as_of, trained_as_of=space.trained_as_of,
        horizon_days=space.horizon_days, created_at=datetime.now(UTC),
        feature_hash=space.feature_hash,
        checkpoints={
            name: CheckpointEntry.of(part.directory, part.sha256, root=workspace.root)
            for name, part in space.parts.items()
        },
        kinds=kinds, num_users=num_users, users=f"snapshots/{snapshot}/users.parquet", reports=[],
        built_by=getpass.getuser(), version=version("openfound"), source=dataset.name,
        synthetic=dataset.synthetic, facts=facts, features=dataset.features,
        calibration=calibration,
    )  # fmt: skip


if __name__ == "__main__":
    main(Embed, run)
