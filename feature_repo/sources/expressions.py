"""Values that a mapping file computes from a row: ``{sql: "units * unit_price"}``.

The author of a mapping is trusted with the data, not with more: an expression is parsed first and
must be one value computed from the row alone. No statement, subquery, aggregate, window, and no
function whose answer changes from one call to the next (a load must repeat). It is evaluated by a
DuckDB connection that can reach neither files nor network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from feature_repo.errors import InputError

ALLOWED: Final = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "OPERATOR",
        "TYPE",
    }
)
"""DuckDB's classes of expressions that compute one value from one row."""

CALCULATIONS: Final = frozenset(
    ["+", "-", "*", "/", "//", "%", "**", "^"]
    + ["abs", "ceil", "ceiling", "exp", "floor", "ln", "log", "round", "sqrt"]
)
"""Functions whose arguments are numbers."""

# What must be empty in a query that is nothing but the expression.
_CLAUSES: Final = ("modifiers", "where_clause", "group_expressions", "having", "qualify", "sample")


@dataclass(frozen=True)
class Parsed:
    """A checked expression; column names in lower case, since SQL ignores case."""

    columns: frozenset[str]
    """The columns it reads."""
    numbers: frozenset[str]
    """Those of them that it calculates with, or compares with a number."""


@lru_cache(maxsize=256)
def parse(sql: str, *, where: str) -> Parsed:
    """Check an expression and say what it reads.

    Args:
        sql: the expression.
        where: its place in the mapping, for messages, e.g. ``"events.0.amount"``.

    Raises:
        InputError: it is not one scalar expression over the row.
    """
    with _closed_connection() as connection:
        query = "SELECT json_serialize_sql($1::VARCHAR)"
        answer = connection.execute(query, [f"SELECT {_value(sql)}"]).fetchone()
        tree: Any = json.loads(answer[0]) if answer else {"error": True}
        if tree["error"] or not sql.strip():
            why = tree.get("error_message", "nothing there")
            raise InputError(f"{where}: expected one SQL expression, got {sql!r}: {why}")
        nodes = list(_descendants(tree))
        if not _is_single(tree) or any(node["class"] not in ALLOWED for node in nodes):
            raise InputError(
                f"{where}: expected one value computed from the row (no statement, subquery, "
                f"window, lambda, parameter or *), got {sql!r}"
            )
        functions = sorted({n["function_name"] for n in nodes if n["class"] == "FUNCTION"})
        _check_functions(connection, functions, sql, where)
    columns = frozenset(_name(node) for node in nodes if node["class"] == "COLUMN_REF")
    root = tree["statements"][0]["node"]["select_list"][0]
    return Parsed(columns, frozenset(_number_columns(root, as_number=False)))


def evaluate(sql: str, table: pa.Table, *, where: str) -> pa.Array:
    """[num rows] the expression's value for every row of ``table``, nulls included.

    Raises:
        InputError: it does not fit the columns' types, or fails on some value.
    """
    parsed = parse(sql, where=where)
    read = [name for name in table.column_names if name.lower() in parsed.columns]
    position = pa.array(np.arange(table.num_rows))
    rows = table.select(read).append_column(_POSITION, position)
    with _closed_connection() as connection:
        connection.register("rows_of_the_file", rows)
        query = f"SELECT {_POSITION}, {_value(sql)} AS value FROM rows_of_the_file ORDER BY 1"
        try:
            answer = connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            kinds = {name: str(table.schema.field(name).type) for name in read}
            raise InputError(
                f"{where}: {sql!r} failed on columns {kinds}: {error}; "
                "a cast may help, e.g. try_cast(units AS DOUBLE)"
            ) from error
    if answer.num_rows != table.num_rows:
        raise InputError(f"{where}: expected one value per row, got {answer.num_rows} from {sql!r}")
    return answer.column("value").combine_chunks()


_POSITION: Final = "openfound_position"


def _value(sql: str) -> str:
    return f"(\n{sql}\n)"  # own lines, so that a comment in it cannot hide the parenthesis


def _closed_connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _children(node: Any) -> Iterator[dict[str, Any]]:
    """The expression nodes directly below a part of DuckDB's serialized parse tree."""
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for part in parts:
        if isinstance(part, dict) and "class" in part:
            yield part
        else:
            yield from _children(part)


def _descendants(node: Any) -> Iterator[dict[str, Any]]:
    for child in _children(node):
        yield child
        yield from _descendants(child)


def _name(reference: dict[str, Any]) -> str:
    name: str = reference["column_names"][0]
    return name.lower()


def _number_columns(node: dict[str, Any], *, as_number: bool) -> Iterator[str]:
    """The columns that are used as numbers below a node, itself used as a number or not."""
    if node["class"] == "COLUMN_REF":
        if as_number:
            yield _name(node)
        return
    children = list(_children(node))
    if _calculates(node):
        as_number = True
    elif node["class"] in ("COMPARISON", "BETWEEN") or node["type"] == "COMPARE_IN":
        as_number = any(map(_is_number, children))
    elif not _passes_on(node):
        as_number = False
    conditions = [check["when_expr"] for check in node.get("case_checks", ())]
    for child in children:
        yield from _number_columns(child, as_number=as_number and child not in conditions)


def _is_number(node: dict[str, Any]) -> bool:
    """Whether a node is a number by its form: a literal, a calculation, or a choice of such."""
    if node["class"] == "CONSTANT":
        return node["literal"]["kind"] in ("INTEGER", "NUMERIC")
    return _calculates(node) or (_passes_on(node) and any(map(_is_number, _children(node))))


def _calculates(node: dict[str, Any]) -> bool:
    return node["class"] == "FUNCTION" and node["function_name"] in CALCULATIONS


def _passes_on(node: dict[str, Any]) -> bool:
    """Whether a node's value is one of its children's."""
    return (
        node["class"] == "CASE"
        or node["type"] == "OPERATOR_COALESCE"
        or node.get("function_name") == "nullif"
    )


def _is_single(tree: Any) -> bool:
    """Whether the tree is ``SELECT (one expression)`` and nothing else."""
    if len(tree["statements"]) != 1:
        return False
    node = tree["statements"][0]["node"]
    return (
        node["type"] == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not node["cte_map"]["map"]
        and not any(node.get(clause) for clause in _CLAUSES)
    )


def _check_functions(
    connection: duckdb.DuckDBPyConnection, names: list[str], sql: str, where: str
) -> None:
    """Refuse functions that look at more than the row: aggregates, tables, clock, chance."""
    rows = connection.execute(
        """SELECT function_name FROM duckdb_functions() WHERE list_contains($1, function_name)
        GROUP BY function_name HAVING bool_or(stability <> 'CONSISTENT')
        OR NOT bool_or(function_type IN ('scalar', 'macro')) ORDER BY function_name""",
        [names],
    ).fetchall()
    if rows:
        raise InputError(
            f"{where}: expected a value computed from the row alone, but {rows[0][0]} in {sql!r} "
            "aggregates, makes rows, or depends on the clock or on chance"
        )
