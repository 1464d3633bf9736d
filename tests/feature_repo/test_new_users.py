"""Weekly rows from raw events at once: those of a batch build, whoever was asked for before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_repo.errors import InputError, TimeError
from feature_repo.habits import habits_weekly
from feature_repo.new_users import NewUsers
from feature_repo.profiles import profile_weekly
from feature_repo.schema import CANONICAL
from feature_repo.sources import read_source
from feature_repo.transforms import behaviour_weekly, open_tables, search_weekly

AS_OF = datetime(2024, 4, 22, tzinfo=UTC)
BUILDS = {"behaviour_weekly": behaviour_weekly, "profile_weekly": profile_weekly,
          "habits_weekly": habits_weekly, "search_weekly": search_weekly}  # fmt: skip
OWN = {"categorical": ["city", "life_stage", "occupation", "plan", "vehicle"],
       "continuous": ["age"]}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> dict[str, pa.Table]:
    """Eight users: one lapsed nine weeks ago, one only searches, of one there is no profile."""
    source = read_source("synthetic:users=40,seed=0,weeks=20")
    tables = {name: getattr(source, name) for name in CANONICAL}
    searchers = tables["searches"]["user_id"].unique().to_pylist()[:8]
    tables = {name: _of(table, searchers) for name, table in tables.items()}
    lapsed, searcher, unknown = searchers[:3]
    long_ago = pa.scalar(AS_OF - timedelta(weeks=9), tables["events"]["known_at"].type)
    for name in ("events", "searches"):
        recent = pc.greater(tables[name]["known_at"], long_ago)
        gone = pc.and_(pc.equal(tables[name]["user_id"], lapsed), recent)
        tables[name] = tables[name].filter(pc.invert(gone))
    tables["events"] = _without(tables["events"], searcher)
    tables["profiles"] = _without(tables["profiles"], unknown)
    return tables


def _of(table: pa.Table, users: list[str]) -> pa.Table:
    if "user_id" not in table.column_names:
        return table
    return table.filter(pc.is_in(table["user_id"], value_set=pa.array(users)))


def _without(table: pa.Table, user: str) -> pa.Table:
    return table.filter(pc.not_equal(table["user_id"], user))


def raw(world: dict[str, pa.Table], users: list[str]) -> dict[str, pa.Table]:
    return {name: _of(table, users) for name, table in world.items() if name != "items"}


@pytest.fixture(scope="module")
def new_users(world: dict[str, pa.Table]) -> Iterator[NewUsers]:
    opened = NewUsers(world["items"], OWN)
    yield opened
    opened.close()


@pytest.mark.parametrize("as_of", [AS_OF, AS_OF - timedelta(days=17)], ids=str)
def test_the_rows_are_those_of_a_batch_build(
    world: dict[str, pa.Table], new_users: NewUsers, as_of: datetime
) -> None:
    with open_tables(world) as connection:
        built = {view: build(connection, as_of) for view, build in BUILDS.items()}
    users = sorted(set(built["behaviour_weekly"]["user_id"].to_pylist()))
    assert len(users) == 8
    for asked in [[user] for user in users] + [users[:1], users[2:5]]:
        found = new_users(raw(world, asked), as_of)
        assert set(found) >= set(BUILDS) - {"search_weekly"}
        for view, table in found.items():
            assert table.equals(_of(built[view], asked)), (view, asked)
    behaviour = built["behaviour_weekly"]
    counts = {user: _of(behaviour, [user])["num_events"].to_pylist() for user in users}
    assert any(sum(of) and not sum(of[-6:]) for of in counts.values())  # who lapsed is among them
    assert any(not sum(of) for of in counts.values())  # and who only searches


def test_the_plans_are_made_once(world: dict[str, pa.Table], new_users: NewUsers) -> None:
    """They are what most of the time would go into."""
    some = sorted(world["events"]["user_id"].unique().to_pylist())
    new_users(raw(world, some[:1]), AS_OF)
    before = plans(new_users)
    new_users(raw(world, some[1:2]), AS_OF)
    assert plans(new_users) == before
    for day in range(12):
        new_users(raw(world, some[:1]), AS_OF + timedelta(days=day))
    after = plans(new_users)
    assert {view: len(kept) for view, kept in after.items()} == dict.fromkeys(BUILDS, 8)
    for view, kept in before.items():
        assert set(kept.values()).isdisjoint(after[view].values())


def plans(new_users: NewUsers) -> dict[str, dict[Any, str]]:
    return {view: dict(each._plans) for view, each in new_users._connections.items()}


def test_names_of_own_columns_may_look_like_parameters(world: dict[str, pa.Table]) -> None:
    user = world["events"]["user_id"][0].as_py()
    odd = """it's "in" $anchor"""
    at = AS_OF - timedelta(weeks=1)
    said = {"user_id": user, "timestamp": at, "known_at": at, "categorical": [(odd, "$anchor")],
            "continuous": []}  # fmt: skip
    profiles = pa.Table.from_pylist([said], schema=CANONICAL["profiles"])
    opened = NewUsers(world["items"], {"categorical": [odd]})
    rows = opened({**raw(world, [user]), "profiles": profiles}, AS_OF)["profile_weekly"]
    opened.close()
    assert rows[f"profile_{odd}"].to_pylist()[-1] == "$anchor"


def test_own_columns_are_there_for_whom_they_say_nothing(new_users: NewUsers) -> None:
    event = {"event_id": ["e"], "user_id": ["n"], "timestamp": [AS_OF - timedelta(days=1)],
             "known_at": [AS_OF - timedelta(days=1)], "source": ["bill"],
             "item_id": [next(iter(new_users._place))]}  # fmt: skip
    rows = new_users({"events": pa.table(event)}, AS_OF)
    assert "search_weekly" not in rows
    (row,) = rows["profile_weekly"].to_pylist()
    assert (row["profile_city"], row["profile_age"], row["agg_recency_days"]) == (None, None, 1.0)


def test_what_is_wrong_is_told(world: dict[str, pa.Table], new_users: NewUsers) -> None:
    user = world["events"]["user_id"][0].as_py()
    rows = raw(world, [user])
    events = rows["events"]
    strange = events.set_column(
        events.column_names.index("item_id"), "item_id", pa.array(["nothing"] * len(events))
    )
    with pytest.raises(InputError, match="1 items are not in the catalogue, such as 'nothing'"):
        new_users({"events": strange}, AS_OF)
    with pytest.raises(InputError, match="unknown table 'event'; nearest: 'events'"):
        new_users({"event": events}, AS_OF)
    with pytest.raises(InputError, match="events: column 'known_at' is absent"):
        new_users({"events": events.drop_columns("known_at")}, AS_OF)
    with pytest.raises(InputError, match="events: .*screen the rows first"):
        new_users({"events": events.set_column(0, "event_id", pa.nulls(len(events)))}, AS_OF)
    with pytest.raises(TimeError, match="before the data"):
        new_users(rows, AS_OF - timedelta(weeks=40))
    with pytest.raises(TimeError, match="no events and no searches"):
        new_users({}, AS_OF)
