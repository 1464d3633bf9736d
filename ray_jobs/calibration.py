"""Evidence for a calibration: what earlier snapshots said, and what happened after them.

A snapshot's weights were trained before its ``as_of``, so its scores on that day have seen nothing
of the horizon that follows. Once that horizon lies before a new snapshot's ``as_of``, its outcomes
are known, and the new snapshot may learn from them (docs/decisions/calibration.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from encoders import checkpoint
from encoders.calibration import FILE, PastBuyers
from encoders.calibration_fit import Evidence, fit
from encoders.catalogue import Subject
from encoders.query import QueryEncoder
from feature_repo import durable
from feature_repo.manifest import FileEntry, Manifest
from feature_repo.schema import BILL, CLICK, MINI_PROGRAM
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import micros, open_tables
from ray_jobs.command import console

MAX_CUTOFFS = 4  # the latest ones
_WINDOWS = 3  # of the past, as long as the horizon each
_SOURCES = {"purchase": BILL, "click": CLICK, "browsing": MINI_PROGRAM}
_DONE = """
WITH subjects AS (  -- an item without categories is its own subject
    SELECT item_id, unnest(categories) AS subject FROM items
    UNION ALL SELECT item_id, text FROM items WHERE len(categories) = 0)
SELECT DISTINCT row, subject, source, span FROM (
    SELECT u.row, subject, e.source,
           floor((epoch_us(e.timestamp) - $t) / ($days * 86400000000.0))::INT AS span
    FROM known_events e JOIN subjects USING (item_id) JOIN evidence_users u USING (user_id)
    WHERE epoch_us(e.timestamp) >= $first AND epoch_us(e.timestamp) < $end AND e.seen < $known
      AND (e.seen < $t OR epoch_us(e.timestamp) >= $t))
"""


def earlier(workspace: Workspace, as_of: datetime, horizon_days: int) -> list[Manifest]:
    """The latest snapshots whose horizon was over by ``as_of``, one per date, oldest first."""
    over = _utc(as_of) - timedelta(days=horizon_days)
    by_date: dict[datetime, Manifest] = {}
    for manifest in SnapshotStore(workspace).list():  # newest first
        fits = manifest.horizon_days == horizon_days and "fused" in manifest.kinds
        if fits and manifest.as_of <= over:
            by_date.setdefault(manifest.as_of, manifest)
    return [by_date[date] for date in sorted(by_date)][-MAX_CUTOFFS:]


def evidence(
    workspace: Workspace, tables: Path, manifest: Manifest, *, known_before: datetime
) -> Evidence | None:
    """One snapshot's scores of every heading of its catalogue, and who did it afterwards.

    Returns:
        None where the checkpoint holds no catalogue.
    """
    directory = workspace.root / manifest.checkpoints["alignment"].path
    catalogue = checkpoint.read_catalogue(directory)
    if catalogue is None:
        return None
    asked = [subject for subject in catalogue.headings if subject.kind in _SOURCES]
    encoder = QueryEncoder.open(directory)
    sentences = [s.sentence(horizon_days=manifest.horizon_days) for s in asked]
    queries_SD = encoder.encode(sentences)
    vectors_ND = np.load(workspace.root / manifest.entry("fused").matrix, mmap_mode="r")
    done_WNS = _done(workspace, tables, manifest, asked, known_before)
    counts_WS = done_WNS[:_WINDOWS].sum(1).astype(float)
    again_S = (done_WNS[_WINDOWS - 1] & done_WNS[_WINDOWS - 2]).sum(0).astype(float)
    past = tuple(
        PastBuyers(manifest.num_users, last, before / (_WINDOWS - 1), previous, again)
        for last, before, previous, again in zip(
            counts_WS[-1], counts_WS[:-1].sum(0), counts_WS[-2], again_S, strict=True
        )
    )
    return Evidence(
        cutoff=f"{manifest.as_of:%Y-%m-%d}",
        names=tuple(subject.name for subject in asked),
        scores_NS=(np.asarray(vectors_ND) @ queries_SD.T * encoder.scale).astype(np.float32),
        labels_NS=done_WNS[_WINDOWS],
        base_S=encoder.base_rates(sentences),
        past=past,
    )


def calibrate(
    workspace: Workspace, tables: Path, as_of: datetime, staged: Path, *,
    scale: float, horizon_days: int,
) -> FileEntry | None:  # fmt: skip
    """Fit on earlier snapshots and write ``calibration.json`` into a staged one.

    Args:
        scale: of the checkpoint whose scores will be calibrated.

    Returns:
        The manifest's entry; None if there is nothing to learn from yet.
    """
    found = [
        evidence(workspace, tables, manifest, known_before=as_of)
        for manifest in earlier(workspace, as_of, horizon_days)
    ]
    usable = [each for each in found if each is not None]
    if not usable:
        return None
    try:
        learnt = fit(usable, horizon_days=horizon_days, scale=scale)
    except ValueError as error:
        console.print(f"  no calibration: {error}")
        return None
    durable.write(staged / FILE, learnt.to_json())
    console.print(f"  calibrated on {learnt.num_behaviours} behaviours after "
                  f"{', '.join(learnt.cutoffs)}")  # fmt: skip
    path = f"snapshots/{staged.name}/{FILE}"
    return FileEntry(path=path, sha256=durable.sha256(staged / FILE))


def _done(
    workspace: Workspace, tables: Path, manifest: Manifest, asked: Sequence[Subject],
    known_before: datetime,
) -> np.ndarray:  # fmt: skip
    """Who did what in each window before ``as_of`` and in the horizon after it, bool [W, N, S]."""
    as_of, days = manifest.as_of, manifest.horizon_days
    span = timedelta(days=days)
    place = {(_SOURCES[s.kind], s.name): k for k, s in enumerate(asked)}
    found = np.zeros((_WINDOWS + 1, manifest.num_users, len(asked)), bool)
    con = open_tables(tables)
    try:
        _register_users(con, workspace, manifest)
        rows = con.sql(
            _DONE,
            params={
                "t": micros(as_of), "days": days, "known": micros(known_before),
                "first": micros(as_of - _WINDOWS * span), "end": micros(as_of + span),
            },
        ).fetchall()  # fmt: skip
    finally:
        con.close()
    for row, subject, source, window in rows:
        at = place.get((source, subject))
        if at is not None:
            found[window + _WINDOWS, row, at] = True
    return found


def _register_users(
    con: duckdb.DuckDBPyConnection, workspace: Workspace, manifest: Manifest
) -> None:
    users = pq.read_table(workspace.root / manifest.users)["user_id"]
    rows = pa.array(range(len(users)), pa.int32())
    con.register("evidence_arrow", pa.table({"user_id": users, "row": rows}))
    con.execute("CREATE OR REPLACE TEMP TABLE evidence_users AS SELECT * FROM evidence_arrow")
    con.unregister("evidence_arrow")


def _utc(date: datetime) -> datetime:
    return date if date.tzinfo else date.replace(tzinfo=UTC)
