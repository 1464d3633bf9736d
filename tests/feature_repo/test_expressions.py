"""Expressions of a mapping: one value of the row, nothing else, and no way out of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from feature_repo.errors import InputError
from feature_repo.sources.expressions import evaluate, parse


@pytest.mark.parametrize(
    "sql",
    [
        "1); DROP TABLE x; --",
        "1; SELECT 2",
        "1) FROM rows_of_the_file WHERE (1=1",
        "1), (2",
        "1) FROM range(2",
        "(SELECT 1)",
        "EXISTS (SELECT 1)",
        "sum(a)",
        "row_number() OVER ()",
        "count(*)",
        "*",
        "COLUMNS('a')",
        "$1",
        "random()",
        "now()",
        "unnest([1, 2])",
        "read_text('/etc/hostname')",
        "a ORDER BY 1",
        "COPY t TO 'x'",
        "",
    ],
)
def test_what_is_no_value_of_the_row_is_refused(sql: str) -> None:
    with pytest.raises(InputError, match="here: expected"):
        parse(sql, where="here")


@pytest.mark.parametrize(
    ("sql", "columns", "value"),
    [
        ("A * 2 -- doubled", {"a"}, 6),
        ("CASE WHEN b = 'x' THEN a ELSE NULL END", {"a", "b"}, 3),
        ("try_cast(b AS DOUBLE)", {"b"}, None),
        ("coalesce(nullif(b, 'x'), 'none') || '-' || a", {"a", "b"}, "none-3"),
        ("strptime('03.02.2026', '%d.%m.%Y')", set(), datetime(2026, 2, 3)),
        ("a BETWEEN 1 AND 5 AND b IN ('x', 'y')", {"a", "b"}, True),
    ],
)
def test_what_is_a_value_of_the_row_is_computed(sql: str, columns: set[str], value: Any) -> None:
    assert parse(sql, where="here").columns == columns
    table = pa.table({"a": [3], "b": ["x"]})
    assert evaluate(sql, table, where="here").to_pylist() == [value]


@pytest.mark.parametrize(
    ("sql", "numbers"),
    [
        ("a * b", {"a", "b"}),
        ("a || '-' || b", set()),
        ("a > 0 AND b = 'x'", {"a"}),
        ("a = '7' OR b IN (1, 2)", {"b"}),
        ("round(coalesce(a, 0), 2)", {"a"}),
        ("CASE WHEN a = 'x' THEN b ELSE c END * 2", {"b", "c"}),
        ("CASE WHEN a = 'x' THEN b ELSE c END", set()),
        ("try_cast(a AS DOUBLE) - b", {"b"}),
        ("lower(a) = 'x' AND length(b) > 3", set()),
        ("nullif(a, '') > 1", {"a"}),
    ],
)
def test_text_is_a_number_where_it_is_used_as_one(sql: str, numbers: set[str]) -> None:
    assert parse(sql, where="here").numbers == numbers


def test_an_expression_reaches_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    table = pa.table({"path": [str(secret)]})
    for sql in ("getenv('HOME')", "(FROM read_text(path))", "parse_path(path)[1]"):
        try:
            answer = evaluate(sql, table, where="here").to_pylist()
        except InputError:
            continue
        assert "secret" not in str(answer).replace("secret.txt", "")
