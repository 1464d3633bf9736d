"""Raw source → canonical tables → weekly feature views in Feast, as of a date.

    python -m ray_jobs.build_features --source complete-journey --as-of 2017-11-06 --workspace DIR

A workspace holds one data set: ids of two sources would collide. If its files or its mapping have
changed, they are ingested as new tables, and weekly views are built from these alone: each set of
tables has its own directory of them.
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
    features: str = "features"  # directory of the weekly views of these tables
    own: dict[str, list[str]] | None = None  # profile columns that are declared, by kind


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
                "quarantined": tables.quarantine.num_rows, "dropped": tables.dropped,
                "own": tables.own}  # fmt: skip

    record = run_stage(workspace, "ingest", inputs, work)
    (directory,) = record["outputs"]
    dataset = Dataset(source, demographics, record["name"], record["synthetic"], directory,
                      f"features/{Path(directory).name}", record["own"])  # fmt: skip
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
    """Weekly rows of every window that ends on or before ``as_of``, counted back from it.

    Raises:
        InputError: the workspace holds other tables by now, or earlier parts have other columns.
    """
    check_present(workspace, dataset)

    def work(key: str) -> dict[str, Any]:
        con = open_tables(workspace.root / dataset.tables)
        views = {"behaviour_weekly": behaviour_weekly(con, as_of),
                 "profile_weekly": profile_weekly(con, as_of, dataset.own),
                 "habits_weekly": habits_weekly(con, as_of),
                 "purchases_weekly": purchases_weekly(con, as_of)}  # fmt: skip
        if con.sql("SELECT count(*) FROM searches").fetchall()[0][0]:
            views["search_weekly"] = search_weekly(con, as_of)
        con.close()
        home = workspace.root / dataset.features
        paths = {name: home / name / f"part-{as_of:%Y%m%d}-{key}.parquet" for name in views}
        for name, table in views.items():
            _check_columns(table.schema, paths[name].parent, as_of)
        for name, table in views.items():
            _write(table, paths[name])
        outputs = [str(path.relative_to(workspace.root)) for path in paths.values()]
        FeatureStore(workspace).apply()
        rows = len(views["behaviour_weekly"])
        console.print(f"  {rows:,} user-weeks in {', '.join(views)}; applied to Feast")
        return {"outputs": outputs, "as_of": as_of.isoformat(), "rows": rows}

    return run_stage(workspace, "features", [dataset.tables, as_of.isoformat()], work)


def check_present(workspace: Workspace, dataset: Dataset) -> None:
    """Raise InputError if the workspace's tables, and so its features, are others by now."""
    if not workspace.dataset_file.exists():
        return  # tables that were brought in by hand
    held = read_dataset(workspace)
    if held.tables != dataset.tables:
        raise InputError(
            f"workspace: {workspace.root} holds {held.tables} by now, this run began with "
            f"{dataset.tables}: the data or the mapping changed meanwhile; start it again"
        )


def _check_columns(columns: pa.Schema, directory: Path, as_of: datetime) -> None:
    """The parts of a view are read as one table: a column that some lack would be lost."""
    for part in sorted(directory.glob("*.parquet")):
        theirs, ours = _kinds(pq.read_schema(part)), _kinds(columns)
        if theirs != ours:
            differ = sorted(name for name, _ in theirs.items() ^ ours.items())
            raise InputError(
                f"{directory.name}: as of {as_of:%Y-%m-%d} the columns {differ} are others than in "
                f"{part}, and all parts of a view must agree; ingest the data anew "
                "(python -m ray_jobs.build_features), or name another --workspace"
            )


def _kinds(columns: pa.Schema) -> dict[str, str]:
    # Two list types are unequal if only their inner fields' names differ, so look inside.
    return {
        column.name: str(column.type.value_type if pa.types.is_list(column.type) else column.type)
        for column in columns
    }


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
