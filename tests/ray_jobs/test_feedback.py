"""What feedback is fitted on: what followed, and outcomes that had ended and repeat."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from encoders.pairs import FactTable, OutcomeTable
from feature_repo.schema import FACTS, TIMESTAMP
from ray_jobs.feedback import done_then, outcomes_before

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
WEEKS = (0, 2, 4)


def test_only_outcomes_that_had_ended_and_repeat_are_counted() -> None:
    cutoffs = [FIRST + timedelta(weeks=week) for week in WEEKS]
    rows = [
        {"user_id": user, "cutoff": cutoff, "outcome": name, "horizon_days": 14,
         "happened": user == "a"}
        for user in ("a", "b") for cutoff in cutoffs for name in ("nothing", "more")
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows)
    table = table.set_column(1, "cutoff", table["cutoff"].cast(TIMESTAMP))
    table = table.set_column(3, "horizon_days", table["horizon_days"].cast(pa.int32()))
    at_us = np.array([int(cutoff.timestamp() * 1e6) for cutoff in cutoffs])
    outcomes = OutcomeTable(table, ["a"] * 3 + ["b"] * 3, np.tile(at_us, 2))
    sentences, times_UO = outcomes_before(outcomes, ["a", "b"], np.full(2, at_us[-1]))
    assert sentences == ["will not shop at all in the next two weeks"]
    # Of three, the last one's future begins where the users stand.
    np.testing.assert_allclose(np.expm1(times_UO.numpy()), [[2], [0]], rtol=1e-6)


def test_what_users_did_after_their_latest_row_is_looked_up() -> None:
    cutoffs = [FIRST, FIRST + timedelta(weeks=4)]
    rows = [
        {"user_id": user, "cutoff": cutoffs[at], "kind": "purchase", "subject": subject,
         "level": 1, "count": 1.0, "amount": 2.0}
        for user, at, subject in (("a", 0, "TEA"), ("a", 1, "SOAP"), ("b", 0, "SOAP"))
    ]  # fmt: skip
    at_us = np.array([int(cutoff.timestamp() * 1e6) for cutoff in cutoffs])
    facts = FactTable(pa.Table.from_pylist(rows, FACTS), ["a", "b", "a"], at_us[[0, 0, 1]])
    said = ["will buy soap in the next four weeks", "will buy tea in the next four weeks", "else"]
    # Of a the second sample is the latest, of b the only one; their rows are 7 and 5.
    shown = done_then(facts, said, 28, np.array([9, 5, 7]), np.array([7, 5]))
    assert shown.tolist() == [[True, False, False], [True, False, False]]
    assert done_then(facts, said, 28, np.array([9, 5, 7]), np.array([9])).tolist() == [
        [False, True, False]
    ]
