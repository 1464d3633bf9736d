"""The weekly rows of users who just came, from their raw events, by the SQL of batch builds.

    rows = NewUsers(items)
    tables = rows({"events": events}, as_of)      # view → weekly rows, as ``transforms`` gives them

For a request that waits: connections stay open, every statement is planned once, which is what most
of the time went into, and two views are asked at a time. There is no second definition of any
column.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from functools import partial
from typing import Any, Final

import pyarrow as pa

from feature_repo.errors import InputError
from feature_repo.habits import habits_weekly
from feature_repo.nearest import unknown
from feature_repo.profiles import OwnColumns, profile_weekly
from feature_repo.schema import CANONICAL
from feature_repo.transforms import Queries, behaviour_weekly, open_tables, search_weekly

warnings.filterwarnings("ignore", "Arrow output on a DB-API result")  # of a few dozen rows

_AT_ONCE: Final = 2  # views: profiles take about as long as the others together
_PLANS: Final = 8  # of a view that are kept, one to a date
_PARAMETER: Final = re.compile(r"""'[^']*'|"[^"]*"|\$(?P<name>\w+)""")  # or a text with signs in it


class NewUsers:
    """Weekly rows of a few users from raw rows alone; for one thread at a time.

    Args:
        items: the catalogue (``schema.ITEMS``).
        own: the source's own profile columns that are wanted, whether or not a user has them.
    """

    def __init__(self, items: pa.Table, own: OwnColumns | None = None):
        self._items = items.cast(CANONICAL["items"])
        self._place = {item: row for row, item in enumerate(items["item_id"].to_pylist())}
        self._tables = {
            name: _Exchanged(schema.empty_table()) for name, schema in CANONICAL.items()
        }
        self._views: dict[str, Callable[[Queries, datetime], pa.Table]] = {
            "profile_weekly": partial(profile_weekly, own=own if own is not None else {}),
            "behaviour_weekly": behaviour_weekly,
            "habits_weekly": habits_weekly,
            "search_weekly": search_weekly,
        }
        self._connections = {view: _PlannedOnce(self._tables) for view in self._views}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="weekly-rows")

    def __call__(self, rows: Mapping[str, pa.Table], as_of: datetime) -> dict[str, pa.Table]:
        """The weekly rows up to ``as_of`` by view; no ``search_weekly`` where nobody searched.

        Args:
            rows: canonical tables (``schema.CANONICAL``) of these users only, screened as a
                source's are; what is left out is empty.

        Raises:
            InputError: a table is none of the canonical ones, or an item is not in the catalogue.
            TimeError: nothing was known of anybody before ``as_of``.
        """
        given = {name: _canonical(name, table) for name, table in rows.items()}
        for name, schema in CANONICAL.items():
            self._tables[name].table = given.get(name, schema.empty_table())
        self._tables["items"].table = self._bought(self._tables["events"].table)
        searched = self._tables["searches"].table.num_rows > 0
        asked = {
            view: self._threads.submit(build, self._connections[view], as_of)
            for view, build in self._views.items()
            if searched or view != "search_weekly"
        }
        wait(asked.values())  # all of them, also where one fails: they read what is exchanged next
        return {view: rows.result() for view, rows in asked.items()}

    def close(self) -> None:
        """Give the connections back; nothing can be asked any more."""
        self._threads.shutdown()
        for connection in self._connections.values():
            connection.close()

    def _bought(self, events: pa.Table) -> pa.Table:
        """The items that the events are about."""
        items = events["item_id"].unique().to_pylist()
        if strange := [item for item in items if item not in self._place]:
            raise InputError(
                f"events: {len(strange)} items are not in the catalogue, such as {strange[0]!r}; "
                "ingest them first (python -m ray_jobs.build_features), or leave their events out"
            )
        return self._items.take(pa.array([self._place[item] for item in items], pa.int64()))


class _Exchanged:
    """What stands behind a table's name: each scan reads the Arrow table that is there by then."""

    def __init__(self, table: pa.Table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class _PlannedOnce:
    """A connection whose statements are planned once and then run on whatever rows are there.

    DuckDB 2.0 keeps the plan of a prepared statement as long as it has no parameter and the
    catalogue does not change, so parameters go into the text and tables stay registered. The plan
    of a table of DuckDB's own would also keep what was known of its rows (duckdb/duckdb#23712); a
    stream says nothing of itself. A version that planned each time would be slow, never wrong.
    """

    def __init__(self, tables: Mapping[str, _Exchanged]):
        self._con = open_tables(tables)
        self._con.execute("SET threads = 1")
        self._plans: dict[tuple[str, tuple[tuple[str, int], ...]], str] = {}
        self._num = 0

    def sql(self, query: str, *, params: dict[str, int]) -> Any:
        """The rows of a statement, as something with ``to_arrow_table()``."""
        key = query, tuple(params.items())
        if (name := self._plans.get(key)) is None:
            name = self._prepare(query, params)
            self._plans[key] = name
        return self._con.execute(f"EXECUTE {name}")  # a relation would bind it twice: 2 ms of 10

    def execute(self, query: str, parameters: dict[str, int] | None = None) -> Any:
        """Run a statement that will hardly come again, planned as ever."""
        return self._con.execute(query, parameters)

    def close(self) -> None:
        self._con.close()

    def _prepare(self, query: str, params: dict[str, int]) -> str:
        if len(self._plans) >= _PLANS:
            oldest = next(iter(self._plans))
            self._con.execute(f"DEALLOCATE {self._plans.pop(oldest)}")
        self._num += 1
        self._con.execute(f"PREPARE planned_{self._num} AS {_written(query, params)}")
        return f"planned_{self._num}"


def _written(query: str, params: Mapping[str, int]) -> str:
    """The query with its parameters in the text."""
    return _PARAMETER.sub(
        lambda found: f"({params[name]}::BIGINT)" if (name := found["name"]) else found[0], query
    )


def _canonical(name: str, table: pa.Table) -> pa.Table:
    """The table with the canonical columns, in order; those that may be null may be absent."""
    if name not in CANONICAL:
        raise InputError(unknown("rows", "table", name, CANONICAL))
    columns = []
    for field in CANONICAL[name]:
        if field.name in table.column_names:
            columns.append(table[field.name])
        elif field.nullable:
            columns.append(pa.nulls(len(table), field.type))
        else:
            raise InputError(
                f"{name}: column {field.name!r} is absent, got {table.column_names}; expected "
                f"{CANONICAL[name].names}"
            )
    try:
        return pa.table(columns, names=CANONICAL[name].names).cast(CANONICAL[name])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise InputError(f"{name}: {error}; screen the rows first (quarantine.screen)") from None
