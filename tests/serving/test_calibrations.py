"""The calibration that a snapshot carries, asked as the service asks it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoders.calibration import Calibration
from encoders.catalogue import FILE, Catalogue, Subject
from encoders.rewriting import named_in
from feature_repo.errors import ManifestError
from feature_repo.settings import Workspace
from serving.calibrated import Abstained
from serving.calibrations import calibrators

USERS = 500
LEARNT = Calibration(
    horizon_days=28, rate=(0.0, 1.0, 0.3), gain=(0.0, -0.5, 0.0), spread=0.2, tilt=0.1,
    lowest=0.01, highest=0.6, cutoffs=("2017-07-17",), num_behaviours=200, scale=0.9,
)  # fmt: skip


@pytest.fixture
def snapshot(tmp_path: Path) -> tuple[Workspace, Any]:
    kinds = ("purchase", "browsing", "click")
    catalogue = Catalogue.of(
        [Subject("purchase", "MILK", 2, "", 9),
         *(Subject(kind, "CAT FOOD", 2, "GROCERY", 9) for kind in kinds)]
    )  # fmt: skip
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / FILE).write_bytes(catalogue.to_json())
    (tmp_path / "calibration.json").write_bytes(LEARNT.to_json())
    subjects = pa.table({"verb": ["bought", "browsed", "clicked"], "name": ["CAT FOOD"] * 3,
                         "subject": pa.array(range(3), pa.int32())})  # fmt: skip
    pq.write_table(subjects, tmp_path / "subjects.parquet")
    done = [(subject, day, user) for subject, users in ((0, 100), (1, 250), (2, 200))
            for day in (5, 33, 61) for user in range(users)]  # fmt: skip
    columns = {name: pa.array([row[k] for row in done], pa.int32())
               for k, name in enumerate(("subject", "day", "row"))}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "behaviour.parquet")
    manifest = SimpleNamespace(
        calibration=SimpleNamespace(path="calibration.json"),
        checkpoints={"alignment": SimpleNamespace(path="weights")},
        facts=SimpleNamespace(
            subjects=SimpleNamespace(path="subjects.parquet"),
            behaviour=SimpleNamespace(path="behaviour.parquet"),
        ),
        num_users=USERS, horizon_days=28,
    )  # fmt: skip
    return Workspace(tmp_path), manifest


SCORES = np.random.default_rng(0).normal(size=USERS).astype(np.float32)
QUERY = np.zeros(4, np.float32)


def test_a_named_behaviour_is_stated_at_its_past_rate(snapshot: Any) -> None:
    calibrator = calibrators(*snapshot)["fused"]
    stated = calibrator("households that will buy cat food next month", QUERY, SCORES)
    assert stated.probabilities.shape == (USERS,)
    assert stated.probabilities.mean() == pytest.approx(0.2, abs=0.005)
    expected, low, high = stated.buyers(np.argsort(-SCORES)[:50].astype(np.int64))
    assert low < expected < high <= 50
    assert expected > 10  # more than fifty users taken at random


@pytest.mark.parametrize("text", ["cat food", "will buy cat food in the next four weeks"])
def test_what_was_bought_and_browsed_is_counted_as_it_is_read(snapshot: Any, text: str) -> None:
    workspace, manifest = snapshot
    catalogue = Catalogue.from_json((workspace.root / "weights" / FILE).read_bytes())
    assert [subject.kind for subject in named_in("cat food", catalogue)] == ["purchase"]
    stated = calibrators(workspace, manifest)["fused"](text, QUERY, SCORES)
    assert stated.probabilities.mean() == pytest.approx(0.2, abs=0.005)  # not .5: that browsed


def test_another_act_than_the_one_that_is_read_is_not_counted(snapshot: Any) -> None:
    for text in ("will browse cat food in the next four weeks", "people who click cat food"):
        with pytest.raises(Abstained, match="names no behaviour"):
            calibrators(*snapshot)["fused"](text, QUERY, SCORES)


@pytest.mark.parametrize("text", ["our best customers", "people who buy milk", None])
def test_without_ground_it_abstains_and_says_why(snapshot: Any, text: str | None) -> None:
    with pytest.raises(Abstained, match="No probability is stated"):
        calibrators(*snapshot)["fused"](text, QUERY, SCORES)


def test_a_snapshot_without_one_states_nothing(snapshot: Any) -> None:
    workspace, manifest = snapshot
    manifest.calibration = None
    assert calibrators(workspace, manifest) == {}


def test_a_damaged_one_is_named(snapshot: Any) -> None:
    workspace, manifest = snapshot
    (workspace.root / "calibration.json").write_text('{"rate": "DROP TABLE"}')
    with pytest.raises(ManifestError, match="calibration.json"):
        calibrators(workspace, manifest)
