"""Raw source → canonical tables → weekly feature views in Feast, as of a date.

    python -m ray_jobs.build_features --source complete-journey --as-of 2017-11-06 --workspace DIR

A workspace holds one data set: ids of two sources would collide.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field
from rich.table import Table

from feature_repo import durable
from feature_repo.errors import InputError
from feature_repo.habits import habits_weekly
from feature_repo.profiles import profile_weekly
from feature_repo.purchases import purchases_weekly
from feature_repo.schema import CANONICAL
from feature_repo.settings import Workspace
from feature_repo.sources import CanonicalTables, read_source, source_fingerprint
from feature_repo.store import FeatureStore
from feature_repo.transforms import behaviour_weekly, open_tables, search_weekly
from ray_jobs.command import Date, Job, console, main
from ray_jobs.stages import run_stage


class BuildFeatures(Job):
    """Ingest a source and build its weekly feature views."""

    source: str = Field("complete-journey", description="complete-journey | synthetic:users=N,"
                        "seed=N | files:mapping.yaml")  # fmt: skip
    as_of: Date = Field(description="everything known strictly before this date may be used")
    demographics: bool = Field(True, description="use the source's own profile columns")


@dataclass(frozen=True)
class Dataset:
    """The data set of a workspace (``dataset.json``)."""

    source: str
    demographics: bool
    name: str
    synthetic: bool
    tables: str  # directory, relative to the workspace


def run(settings: BuildFeatures) -> dict[str, Any]:
    """Ingest, build the weekly views up to ``as_of``, apply Feast. Returns the stage's record."""
    workspace = settings.place
    dataset = ingest(workspace, settings.source, demographics=settings.demographics)
    return build(workspace, dataset, settings.as_of)


def ingest(workspace: Workspace, source: str, *, demographics: bool) -> Dataset:
    """Bring the source in as canonical Parquet tables, bad rows in quarantine."""
    _check_same_data(workspace, source, demographics)
    inputs = [source_fingerprint(source, demographics=demographics)]

    def work(key: str) -> dict[str, Any]:
        tables = read_source(source, demographics=demographics)
        directory = workspace.tables / key
        for name, table in [*_canonical(tables).items(), ("quarantine", tables.quarantine)]:
            _write(table, directory / f"{name}.parquet")
        _report(tables, directory)
        relative = str(directory.relative_to(workspace.root))
        return {"outputs": [relative], "name": tables.name, "synthetic": tables.synthetic,
                "quarantined": tables.quarantine.num_rows, "dropped": tables.dropped}  # fmt: skip

    record = run_stage(workspace, "ingest", inputs, work)
    dataset = Dataset(source, demographics, record["name"], record["synthetic"],
                      record["outputs"][0])  # fmt: skip
    durable.write(workspace.dataset_file, json.dumps(dataset.__dict__, indent=2).encode())
    return dataset


def read_dataset(workspace: Workspace) -> Dataset:
    """The data set that was ingested into the workspace."""
    try:
        return Dataset(**json.loads(workspace.dataset_file.read_bytes()))
    except FileNotFoundError:
        raise InputError(
            f"{workspace.root} holds no data yet: run `python -m ray_jobs.build_features "
            f"--workspace {workspace.root} --source … --as-of …` first"
        ) from None


def build(workspace: Workspace, dataset: Dataset, as_of: datetime) -> dict[str, Any]:
    """Weekly rows of every window that ends on or before ``as_of``, counted back from it."""

    def work(key: str) -> dict[str, Any]:
        con = open_tables(workspace.root / dataset.tables)
        views = {"behaviour_weekly": behaviour_weekly(con, as_of),
                 "profile_weekly": profile_weekly(con, as_of),
                 "habits_weekly": habits_weekly(con, as_of),
                 "purchases_weekly": purchases_weekly(con, as_of)}  # fmt: skip
        if con.sql("SELECT count(*) FROM searches").fetchall()[0][0]:
            views["search_weekly"] = search_weekly(con, as_of)
        con.close()
        outputs = []
        for name, table in views.items():
            path = workspace.features / name / f"part-{as_of:%Y%m%d}-{key}.parquet"
            _write(table, path)
            outputs.append(str(path.relative_to(workspace.root)))
        FeatureStore(workspace).apply()
        rows = len(views["behaviour_weekly"])
        console.print(f"  {rows:,} user-weeks in {', '.join(views)}; applied to Feast")
        return {"outputs": outputs, "as_of": as_of.isoformat(), "rows": rows}

    return run_stage(workspace, "features", [dataset.tables, as_of.isoformat()], work)


def _check_same_data(workspace: Workspace, source: str, demographics: bool) -> None:
    if not workspace.dataset_file.exists():
        return
    held = read_dataset(workspace)
    if (held.source, held.demographics) != (source, demographics):
        with_ = "with" if held.demographics else "without"
        raise InputError(
            f"workspace: {workspace.root} holds {held.source} {with_} demographics, got "
            f"{source} {'with' if demographics else 'without'}: ids of two data sets would mix; "
            "name another --workspace"
        )


def _canonical(tables: CanonicalTables) -> dict[str, pa.Table]:
    return {name: getattr(tables, name) for name in CANONICAL}


def _write(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable.replacing(path) as temporary:
        pq.write_table(table, temporary, coerce_timestamps="us")


def _report(tables: CanonicalTables, directory: Path) -> None:
    label = "  [yellow](synthetic)[/]" if tables.synthetic else ""
    grid = Table(title=f"{tables.name}{label}", title_justify="left")
    for column in ("table", "rows", "quarantined", "dropped"):
        grid.add_column(column, justify="left" if column == "table" else "right")
    bad = tables.quarantine["table"].value_counts().to_pylist()
    quarantined = {row["values"]: row["counts"] for row in bad}
    for name, table in _canonical(tables).items():
        grid.add_row(name, f"{table.num_rows:,}", f"{quarantined.get(name, 0):,}",
                     f"{tables.dropped.get(name, 0):,}")  # fmt: skip
    console.print(grid)
    if tables.quarantine.num_rows:
        console.print(
            f"  reasons: {_reasons(tables.quarantine)}; see {directory}/quarantine.parquet"
        )


def _reasons(quarantine: pa.Table) -> str:
    counts = quarantine["reason"].value_counts().to_pylist()
    counts.sort(key=lambda row: (-row["counts"], row["values"]))
    return ", ".join(f"{row['values']} ({row['counts']:,})" for row in counts[:6])


if __name__ == "__main__":
    main(BuildFeatures, run)
