"""The rows a training run reads: weekly history, samples at past cut-offs, and their futures.

A sample at cut-off t is a user's past (windows up to t) and the facts of [t, t + horizon). The
last cut-off's horizon ends by ``as_of``; nothing known at or after ``as_of`` is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from encoders.past import SEARCH_VIEW
from feature_repo.errors import InputError, TimeError
from feature_repo.outcomes import HORIZONS, outcomes
from feature_repo.schema import TIMESTAMP
from feature_repo.settings import Workspace
from feature_repo.transforms import (
    DAY_US,
    catalogue,
    data_span,
    facts,
    micros,
    open_tables,
    users_before,
    window_ends,
)
from ray_jobs import frames, retrieval
from ray_jobs.build_features import Dataset, check_present
from ray_jobs.command import console
from ray_jobs.presets import Preset
from ray_jobs.stages import run_stage
from ray_jobs.workers import Workers


@dataclass(frozen=True)
class Run:
    """What every stage of one build shares."""

    workspace: Workspace
    dataset: Dataset
    as_of: datetime
    preset: Preset
    seed: int
    workers: Workers
    precision: str = "float32"


def training_frames(shared: Run) -> dict[str, Any]:
    """Point-in-time weekly rows and future facts of every training sample, written once.

    The vectors of their texts are left in the workspace's cache.
    """
    workspace, preset, as_of = shared.workspace, shared.preset, shared.as_of
    check_present(workspace, shared.dataset)

    def work(key: str) -> dict[str, Any]:
        con = open_tables(workspace.root / shared.dataset.tables)
        cutoffs = training_cutoffs(con, as_of, preset)
        ends = window_ends(con, as_of)
        users = users_before(con, as_of)
        tables = _searched(retrieval.weekly_rows(workspace, users, [_utc(end) for end in ends]))
        tables["facts"] = _facts(con, cutoffs, as_of, preset)
        if preset.outcome_weight:
            tables["outcomes"] = _outcomes(con, cutoffs, as_of, preset)
        tables["catalogue"] = catalogue(con, tables["facts"], known_before=as_of)
        tables["samples"] = _samples(con, cutoffs)
        con.close()
        frames.past(tables, workspace.cache, preset.text.model)  # once, not by every worker
        directory = workspace.root / "training" / key
        frames.save(tables, directory)
        console.print(
            f"  {tables['samples'].num_rows:,} samples at {len(cutoffs)} cut-offs, "
            f"{tables['facts'].num_rows:,} facts, by point-in-time retrieval"
        )
        return {"outputs": [str(directory.relative_to(workspace.root))],
                "rows": tables["samples"].num_rows,
                "views": [name.split("_")[0] for name in tables]}  # fmt: skip

    inputs = [shared.dataset.tables, as_of.isoformat(), preset.horizon_days, preset.num_cutoffs,
              preset.cutoff_step_days, preset.text_period, preset.outcome_weight > 0]  # fmt: skip
    return run_stage(workspace, "samples", inputs, work)


def warn_of_silence(shared: Run) -> None:
    """Say so where ``as_of`` lies more than a week after the last row.

    The futures of training cut-offs end by ``as_of``: weeks that nobody has rows of yet teach that
    people stop buying.
    """
    con = open_tables(shared.workspace.root / shared.dataset.tables)
    last = data_span(con)[1]
    con.close()
    days = (micros(shared.as_of) - last) / DAY_US
    if days > 7:
        console.print(
            f"[bold yellow]warning[/]: as_of={shared.as_of:%Y-%m-%d} lies {days:.0f} days after "
            f"the last row ({_utc(last):%Y-%m-%d}), and training takes that silence for users who "
            f"did nothing: take a date by {_utc(last + DAY_US):%Y-%m-%d}, or bring in the rest"
        )


def purchase_frames(shared: Run) -> dict[str, Any]:
    """All purchases known before ``as_of``, week by week, and their texts' vectors in the cache."""
    workspace, as_of = shared.workspace, shared.as_of
    check_present(workspace, shared.dataset)

    def work(key: str) -> dict[str, Any]:
        con = open_tables(workspace.root / shared.dataset.tables)
        ends, users = window_ends(con, as_of), users_before(con, as_of)
        con.close()
        views = retrieval.views_of("shopper_bert")
        tables = retrieval.weekly_rows(workspace, users, [_utc(end) for end in ends], views)
        history = frames.purchases(tables, workspace.cache)
        if not len(history.product_n):
            raise InputError(
                "stage: shopper_bert reads purchases (events of source bill), and this data set "
                f"has none before {as_of:%Y-%m-%d}"
            )
        directory = workspace.root / "training" / key
        frames.save(tables, directory)
        console.print(f"  {len(history.product_n):,} purchases of {len(history.user_ids):,} users")
        return {"outputs": [str(directory.relative_to(workspace.root))],
                "rows": len(history.product_n)}  # fmt: skip

    return run_stage(workspace, "purchases", [shared.dataset.tables, as_of.isoformat()], work)


def training_cutoffs(
    con: duckdb.DuckDBPyConnection, as_of: datetime, preset: Preset
) -> list[datetime]:
    """Past cut-offs whose horizon ends by ``as_of``, latest first, at least one week in."""
    first = data_span(con)[0]
    cutoffs = [
        as_of - timedelta(days=preset.horizon_days + preset.cutoff_step_days * k)
        for k in range(preset.num_cutoffs)
    ]
    usable = [t for t in cutoffs if micros(t - timedelta(days=7)) >= first]
    if not usable:
        raise TimeError(
            f"as_of={as_of:%Y-%m-%d} leaves no training cut-off: the data begin "
            f"{_utc(first):%Y-%m-%d} and a future of {preset.horizon_days} days is needed after "
            "at least a week of history; take a later date"
        )
    return usable


def _searched(tables: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables without the search view if nobody searched before ``as_of``.

    A log that begins later leaves a row per user and week, with nothing in it to train on.
    """
    if SEARCH_VIEW not in tables:
        return tables
    texts = pc.list_value_length(tables[SEARCH_VIEW]["searches"])
    if pc.any(pc.greater(texts, 0)).as_py():
        return tables
    return {name: table for name, table in tables.items() if name != SEARCH_VIEW}


def _facts(
    con: duckdb.DuckDBPyConnection, cutoffs: list[datetime], as_of: datetime, preset: Preset
) -> pa.Table:
    """Facts of the horizon after each cut-off, or, as an ablation, of the one before it."""
    days = preset.horizon_days
    if preset.text_period == "future":
        return facts(con, cutoffs, horizon_days=days, known_before=as_of)
    horizon = timedelta(days=days)
    told = facts(con, [t - horizon for t in cutoffs], horizon_days=days, known_before=as_of)
    return _at_its_end(told, horizon)


def _outcomes(
    con: duckdb.DuckDBPyConnection, cutoffs: list[datetime], as_of: datetime, preset: Preset
) -> pa.Table:
    """Outcomes of each horizon after each cut-off, or, as an ablation, of the one before it."""
    if preset.text_period == "future":
        return outcomes(con, cutoffs, known_before=as_of)
    ended = []
    for days in HORIZONS:
        horizon = timedelta(days=days)
        begun = [t - horizon for t in cutoffs]
        told = outcomes(con, begun, known_before=as_of, horizons=(days,))
        ended.append(_at_its_end(told, horizon))
    return pa.concat_tables(ended)


def _at_its_end(told: pa.Table, horizon: timedelta) -> pa.Table:
    """What was told of a horizon, as if it were asked at its end."""
    place = told.column_names.index("cutoff")
    moved = pc.add(told["cutoff"], pa.scalar(horizon)).cast(told.schema.field(place).type)
    return told.set_column(place, told.schema.field(place), moved)


def _samples(con: duckdb.DuckDBPyConnection, cutoffs: list[datetime]) -> pa.Table:
    users, times = [], []
    for cutoff in cutoffs:
        known = users_before(con, cutoff)
        users += known
        times += [micros(cutoff)] * len(known)
    return pa.table({"user_id": users, "cutoff": pa.array(times, pa.int64()).cast(TIMESTAMP)})


def _utc(us: int) -> datetime:
    when: datetime = pa.scalar(us, TIMESTAMP).as_py()
    return when
