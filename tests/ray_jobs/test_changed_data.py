"""Files or a mapping that change in a workspace: features are of the present tables alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_repo.errors import InputError
from feature_repo.schema import TIMESTAMP
from feature_repo.settings import Workspace
from feature_repo.store import FeatureStore
from feature_repo.user_rows import user_rows
from ray_jobs import build_features, retrieval, train
from ray_jobs.build_features import BuildFeatures, Dataset, build, ingest, read_dataset

AS_OF = datetime(2026, 1, 26, tzinfo=UTC)
WEEK = timedelta(days=7)
MAPPING = """
events: [{path: orders.csv, source: bill, user_id: u, timestamp: at, text: title}]
profiles: [{path: people.csv, user_id: u, timestamp: at, categorical: [plan]}]
"""
ORDERS = "u,at,title\nb,2025-12-08,OLD\na,2026-01-06,OLD\na,2026-01-20,OLD\n"
PEOPLE = "u,at,plan,age\na,2026-01-01,gold,41\nb,2026-01-28,basic,\n"

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the files and the mapping anew."""

    def write(orders: str = ORDERS, mapping: str = MAPPING) -> None:
        for name, text in (("orders.csv", orders), ("mapping.yaml", mapping)):
            if not (tmp_path / name).exists() or (tmp_path / name).read_text() != text:
                (tmp_path / name).write_text(text)
        if not (tmp_path / "people.csv").exists():
            (tmp_path / "people.csv").write_text(PEOPLE)

    write()
    return write


@pytest.fixture
def workspace(tmp_path: Path, write: Write) -> Workspace:
    return Workspace(tmp_path / "workspace")


def settings(workspace: Workspace, as_of: datetime = AS_OF) -> dict[str, Any]:
    mapping = workspace.root.parent / "mapping.yaml"
    return {"workspace": str(workspace.root), "source": f"files:{mapping}", "as_of": as_of}


def rebuilt(workspace: Workspace, as_of: datetime = AS_OF) -> Dataset:
    build_features.run(BuildFeatures(**settings(workspace, as_of)))
    return read_dataset(workspace)


def asked(*users: str) -> pa.Table:
    ends = [AS_OF - WEEK, AS_OF]
    return pa.table({"user_id": [user for user in users for _ in ends],
                     "event_timestamp": pa.array([*ends] * len(users), TIMESTAMP)})  # fmt: skip


def lines(workspace: Workspace) -> set[str]:
    rows = FeatureStore(workspace).history("behaviour_weekly", asked("a", "b"), ["bills"])
    return {line for bills in rows["bills"].to_pylist() for line in bills}


def test_features_are_of_the_data_and_the_mapping_as_they_are_now(
    workspace: Workspace, write: Write
) -> None:
    old = rebuilt(workspace)
    assert lines(workspace) == {"OLD"}
    write(ORDERS.replace("OLD", "NEW"), MAPPING.replace("[plan]", "[plan], continuous: [age]"))
    new = rebuilt(workspace)
    store = FeatureStore(workspace)
    assert lines(workspace) == {"NEW"}
    assert store.history("profile_weekly", asked("a"))["profile_age"].to_pylist() == [41.0, 41.0]
    store.materialize("behaviour_weekly", AS_OF)
    assert store.online("behaviour_weekly", ["a"])["bills"].to_pylist() == [["NEW"]]
    # Rows that a snapshot of before was embedded from are still there to explain it.
    told = user_rows(workspace.root / old.features, "behaviour_weekly", ["a"], AS_OF, weeks=1)
    assert told["bills"].to_pylist() == [["OLD"]] and old.features != new.features


def test_back_to_earlier_data_nothing_is_built_again_and_all_is_as_before(
    workspace: Workspace, write: Write, tmp_path: Path
) -> None:
    first = rebuilt(workspace)
    shutil.copy2(tmp_path / "orders.csv", tmp_path / "spare.csv")  # with its modification time
    write(ORDERS.replace("OLD", "NEW"))
    rebuilt(workspace)
    shutil.copy2(tmp_path / "spare.csv", tmp_path / "orders.csv")
    assert rebuilt(workspace) == first
    assert lines(workspace) == {"OLD"}


def test_users_that_left_the_data_leave_the_features(workspace: Workspace, write: Write) -> None:
    rebuilt(workspace)
    write("\n".join(line for line in ORDERS.splitlines() if line[:1] != "b") + "\n")
    rebuilt(workspace)
    rows = retrieval.weekly_rows(workspace, ["a", "b"], [AS_OF])
    assert {view: table["user_id"].to_pylist() for view, table in rows.items()} == {
        view: ["a"] for view in ("behaviour_weekly", "profile_weekly", "habits_weekly")
    }


def test_a_column_first_known_between_two_dates_is_in_both_parts(
    workspace: Workspace, write: Write
) -> None:
    write(mapping=MAPPING.replace("[plan]", "[plan, city]"))
    people = workspace.root.parent / "people.csv"
    people.write_text("u,at,plan,city\na,2026-01-01,gold,\na,2026-01-22,gold,Bonn\n")
    dataset = rebuilt(workspace, AS_OF - WEEK)
    rebuilt(workspace)
    rows = FeatureStore(workspace).history("profile_weekly", asked("a"))
    assert rows["profile_city"].to_pylist() == [None, "Bonn"]
    # Where no mapping declares columns they are those that turn up, and may not fit together.
    views = workspace.root / dataset.features
    parts = sorted(views.rglob("*.parquet"))
    with pytest.raises(InputError, match=r"as of 2026-01-12 the columns \['profile_city'\] are"):
        build(workspace, replace(dataset, own=None), AS_OF - 2 * WEEK)
    assert sorted(views.rglob("*.parquet")) == parts


def test_a_run_that_other_data_overtook_is_told_so(workspace: Workspace, write: Write) -> None:
    old = rebuilt(workspace)
    write(ORDERS.replace("OLD", "NEW"))
    rebuilt(workspace)
    with pytest.raises(InputError, match="the data or the mapping changed meanwhile"):
        build(workspace, old, AS_OF)


def test_new_tables_without_features_are_not_paired_with_old_ones(
    workspace: Workspace, write: Write, tiny_presets: None
) -> None:
    """A build that was killed between its two steps."""
    rebuilt(workspace)
    write(ORDERS.replace("OLD", "NEW"))
    ingest(workspace, settings(workspace)["source"], demographics=True)
    with pytest.raises(InputError, match="holds other tables by now"):
        lines(workspace)
    with pytest.raises(InputError, match="holds other tables by now"):
        train.run(train.Train(workspace=str(workspace.root), stage="behaviour", as_of=AS_OF,
                              preset="tiny"))  # fmt: skip
    FeatureStore(workspace).apply()  # as an activation does: what is served meanwhile stays
    assert len(FeatureStore(workspace).feast.list_feature_views()) == 4
    rebuilt(workspace)
    assert lines(workspace) == {"NEW"}


def test_a_workspace_of_before_goes_on(workspace: Workspace) -> None:
    """Its parts lie in features/<view>, and its data set does not say where."""
    held = rebuilt(workspace)
    place = workspace.root / held.features
    for view in [*place.iterdir()]:
        view.rename(place.parent / view.name)
    place.rmdir()
    said = {name: value for name, value in asdict(held).items() if name not in ("features", "own")}
    workspace.dataset_file.write_text(json.dumps(said))
    shutil.rmtree(workspace.feast)
    assert lines(workspace) == {"OLD"}
    build(workspace, read_dataset(workspace), AS_OF + WEEK)
    assert len([*(place.parent / "behaviour_weekly").iterdir()]) == 2
    assert lines(workspace) == {"OLD"}
