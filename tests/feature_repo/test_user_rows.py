"""Weekly rows of a few users: of two builds the later, never a later window, no other weekday."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.errors import NotCarried
from feature_repo.schema import TIMESTAMP
from feature_repo.settings import Workspace
from feature_repo.user_rows import user_rows

LAST = datetime(2017, 9, 11, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    rows = [  # user, days before LAST, built, what
        ("a", 0, 0, "now"), ("a", 7, -1, "old build"), ("a", 7, 0, "week before"),
        ("a", 14, 0, "two before"), ("a", 3, 0, "other weekday"), ("a", -7, 7, "the future"),
        ("b", 0, 0, "b now"), ("c", 0, 0, "not asked"),
    ]  # fmt: skip
    table = pa.table({
        "user_id": [row[0] for row in rows],
        "event_timestamp": pa.array([LAST - row[1] * DAY for row in rows], TIMESTAMP),
        "created": pa.array([LAST + row[2] * DAY for row in rows], TIMESTAMP),
        "what": [[row[3]] for row in rows],
    })  # fmt: skip
    place = tmp_path / "features/some_weekly"
    place.mkdir(parents=True)
    pq.write_table(table.slice(0, 3), place / "part-a.parquet")
    pq.write_table(table.slice(3), place / "part-b.parquet")
    return Workspace(tmp_path)


def test_the_rows_up_to_a_date(workspace: Workspace) -> None:
    found = user_rows(workspace.features, "some_weekly", ["b", "a", "nobody"], LAST, weeks=2)
    assert found["what"].to_pylist() == [["week before"], ["now"], ["b now"]]
    assert found["user_id"].to_pylist() == ["a", "a", "b"]
    assert found["event_timestamp"].type == TIMESTAMP
    assert found["event_timestamp"].to_pylist()[1] == LAST


def test_nobody_has_no_rows(workspace: Workspace) -> None:
    assert len(user_rows(workspace.features, "some_weekly", [], LAST, weeks=2)) == 0


def test_a_view_that_is_gone_is_told(workspace: Workspace) -> None:
    with pytest.raises(NotCarried, match="holds no weekly rows.*build_features"):
        user_rows(workspace.features, "other_weekly", ["a"], LAST, weeks=2)
