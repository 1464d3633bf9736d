"""What distinguishes an audience, on facts small enough to count by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.distinguishing import distinguishing
from feature_repo.errors import NotCarried
from feature_repo.past_buyers import past_buyers
from feature_repo.settings import Workspace

USERS = 100


@pytest.fixture
def snapshot(tmp_path: Path) -> tuple[Workspace, Any]:
    """Users 0–19 bought cat food on day 3; everybody bought milk on days 3 and 40."""
    subjects = [("bought", "", 0), ("bought", "CAT FOOD", 1), ("bought", "MILK", 2)]
    done = [(1, 3, user) for user in range(20)] + [(1, 30, 50)]
    done += [(2, day, user) for day in (3, 40) for user in range(USERS)]
    done += [(0, 3, user) for user in range(USERS)]
    pq.write_table(
        pa.table({"verb": [s[0] for s in subjects], "name": [s[1] for s in subjects],
                  "subject": pa.array([s[2] for s in subjects], pa.int32())}),
        tmp_path / "subjects.parquet",
    )  # fmt: skip
    columns = {name: pa.array([row[k] for row in sorted(done)], pa.int32())
               for k, name in enumerate(("subject", "day", "row"))}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "behaviour.parquet")
    facts = SimpleNamespace(
        subjects=SimpleNamespace(path="subjects.parquet"),
        behaviour=SimpleNamespace(path="behaviour.parquet"),
    )
    manifest = SimpleNamespace(id="one", facts=facts, num_users=USERS, horizon_days=28)
    return Workspace(tmp_path), manifest


def test_what_the_audience_did_more_often_is_named_with_its_lift(snapshot: Any) -> None:
    workspace, manifest = snapshot
    [cats] = distinguishing(workspace, manifest, np.arange(25))
    assert (cats.verb, cats.subject) == ("bought", "CAT FOOD")
    assert cats.share == pytest.approx(20 / 25)
    assert cats.everybody == pytest.approx(21 / 100)
    assert cats.lift == pytest.approx((20 + 5 * 0.21) / 30 / 0.21)


def test_a_handful_is_no_distinction(snapshot: Any) -> None:
    workspace, manifest = snapshot
    assert distinguishing(workspace, manifest, np.array([0, 1, 2, 3])) == []


def test_an_old_snapshot_says_so(snapshot: Any) -> None:
    workspace, manifest = snapshot
    manifest.facts = None
    with pytest.raises(NotCarried, match="carries no facts"):
        distinguishing(workspace, manifest, np.arange(5))
    assert past_buyers(workspace, manifest, "bought", "MILK") is None


def test_past_buyers_by_window(snapshot: Any) -> None:
    workspace, manifest = snapshot
    assert past_buyers(workspace, manifest, "bought", "CAT FOOD") == ([20, 1, 0], 0)
    assert past_buyers(workspace, manifest, "bought", "MILK") == ([100, 100, 0], 100)
    assert past_buyers(workspace, manifest, "bought", "TEA") is None
