"""What earlier snapshots prove, and the calibration that a later one carries."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from encoders.calibration import Calibration, PastBuyers, Probabilities
from encoders.calibration_fit import Evidence
from feature_repo import durable
from feature_repo.past_buyers import past_buyers
from feature_repo.snapshots import SnapshotStore
from ray_jobs import calibration_study, metrics
from ray_jobs.calibration import earlier, evidence
from ray_jobs.embed import embed
from ray_jobs.evaluation import reliability, report

HORIZON = timedelta(days=14)


@pytest.fixture(scope="module")
def proof(trained: Any, bench: Any) -> Evidence:
    (manifest,) = SnapshotStore(trained.workspace).list()
    tables = trained.workspace.root / trained.dataset.tables
    found = evidence(
        trained.workspace, tables, manifest, known_before=manifest.as_of + HORIZON
    )  # fmt: skip
    assert found is not None
    return found


def bought(trained: Any, name: str, start: Any, end: Any, known: Any) -> set[str]:
    """Who bought a subject in [start, end), as known by then, row by row."""
    tables = trained.workspace.root / trained.dataset.tables
    items = pq.read_table(tables / "items.parquet").to_pylist()
    of = {row["item_id"] for row in items if name in row["categories"]}
    return {
        row["user_id"]
        for row in pq.read_table(tables / "events.parquet").to_pylist()
        if row["source"] == "bill"
        and row["status"] != "failed"
        and row["item_id"] in of
        and start <= row["timestamp"] < end
        and max(row["timestamp"], row["known_at"]) < known
    }


def test_labels_and_pasts_are_what_happened(trained: Any, proof: Evidence, bench: Any) -> None:
    (manifest,) = SnapshotStore(trained.workspace).list()
    users = pq.read_table(trained.workspace.root / manifest.users)["user_id"].to_pylist()
    s = int(np.argmax(proof.labels_NS.sum(0)))
    name = proof.names[s]
    now, end = bench.AS_OF, bench.AS_OF + HORIZON
    after = bought(trained, name, now, end, known=end)
    assert {u for u, did in zip(users, proof.labels_NS[:, s], strict=True) if did} == (
        after & set(users)
    )
    lately = bought(trained, name, now - HORIZON, now, known=now) & set(users)
    assert proof.past[s].last == len(lately) > 0
    counts = past_buyers(trained.workspace, manifest, "bought", name)
    assert counts is not None and counts.windows[0] == len(lately)
    assert proof.past[s].before == pytest.approx(np.mean(counts.windows[1:]))
    sooner = bought(trained, name, now - 2 * HORIZON, now - HORIZON, known=now) & set(users)
    assert proof.past[s].previous == counts.windows[1] == len(sooner)
    assert proof.past[s].again == counts.again == len(sooner & lately)


def test_items_without_categories_are_counted_by_their_own_names(
    trained: Any, proof: Evidence, tmp_path: Path
) -> None:
    (manifest,) = SnapshotStore(trained.workspace).list()
    tables = shutil.copytree(trained.workspace.root / trained.dataset.tables, tmp_path / "tables")
    items = pq.read_table(tables / "items.parquet")
    bare = [{**row, "text": row["categories"][1], "categories": []} for row in items.to_pylist()]
    pq.write_table(pa.Table.from_pylist(bare, schema=items.schema), tables / "items.parquet")
    over = manifest.as_of + HORIZON
    found = evidence(trained.workspace, tables, manifest, known_before=over)
    assert found is not None
    topics = [k for k, name in enumerate(proof.names) if name in {row["text"] for row in bare}]
    assert found.labels_NS.any() and len(topics) > 3
    np.testing.assert_array_equal(found.labels_NS[:, topics], proof.labels_NS[:, topics])
    assert [found.past[k] for k in topics] == [proof.past[k] for k in topics]


def test_scores_are_the_served_ones_times_the_scale(trained: Any, proof: Evidence) -> None:
    assert proof.scores_NS.shape == (trained.matrix().shape[0], len(proof.names))
    assert np.linalg.matrix_rank(proof.scores_NS) <= trained.matrix().shape[1]
    assert proof.base_S is not None and len(proof.base_S) == len(proof.names)


def test_nothing_is_learnt_before_the_horizon_is_over(trained: Any, bench: Any) -> None:
    days = HORIZON.days
    assert earlier(trained.workspace, bench.AS_OF, days) == []
    almost = bench.AS_OF + HORIZON - timedelta(days=1)
    assert earlier(trained.workspace, almost, days) == []
    assert len(earlier(trained.workspace, bench.AS_OF + HORIZON, days)) == 1
    assert earlier(trained.workspace, bench.AS_OF + HORIZON, days + 14) == []


def test_a_later_snapshot_carries_what_was_learnt(copy: Any, bench: Any) -> None:
    later = bench.AS_OF + HORIZON
    record = embed(copy.workspace, copy.dataset, copy.checkpoint("alignment"), [later])
    store = SnapshotStore(copy.workspace)
    manifest = store.load(record["snapshot"])
    assert manifest.calibration is not None
    path = copy.workspace.root / manifest.calibration.path
    assert durable.sha256(path) == manifest.calibration.sha256
    learnt = Calibration.from_json(path.read_bytes())
    assert learnt.cutoffs == (f"{bench.AS_OF:%Y-%m-%d}",)
    assert learnt.scale > 0
    assert all(m.calibration is None for m in store.list() if m.id != manifest.id)


def test_the_studys_figures_of_a_perfect_and_a_useless_statement() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 20_000)
    happened = rng.random(len(p)) < p
    rate = np.full(len(p), 0.5)
    assert metrics.calibration_error(p, happened) < 0.01
    assert metrics.calibration_error(1 - p, happened) > 0.4
    assert metrics.brier_skill(p, happened, rate) == pytest.approx(1 / 3, abs=0.02)
    assert metrics.brier_skill(rate, happened, rate) == 0
    assert metrics.interval_score(2.0, 5.0, 4.0) == 3.0
    assert metrics.interval_score(2.0, 5.0, 6.0) == pytest.approx(13.0)
    likely = Probabilities(p)
    expected, low, high = likely.buyers(np.arange(len(p)))
    assert low < happened.sum() < high and expected == pytest.approx(p.sum())


def cutoff(seed: int) -> Evidence:
    """Made-up behaviours whose scores are their log-odds up to a level."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(-2.5, -0.5, 15)
    truth = level + rng.normal(0, 1.5, (600, 15))
    chance = 1 / (1 + np.exp(-truth))
    counts = [(rng.random(truth.shape) < chance).sum(0) for _ in range(3)]
    past = tuple(PastBuyers(600, float(a), float(b + c) / 2)
                 for a, b, c in zip(*counts, strict=True))  # fmt: skip
    names = tuple(f"thing {k}" for k in range(15))
    labels = rng.random(truth.shape) < chance
    return Evidence(f"2017-0{seed}-01", names, truth - level, labels, past, level * 0 - 3.0)


def test_the_study_reports_held_out_pairs() -> None:
    rows = list(calibration_study.study([cutoff(1), cutoff(2)]))
    report = {"pairs": len(rows), **calibration_study.summary(rows)}
    group = report["groups"]["2017-02-01"]
    assert {row["behaviour"] for row in rows} == {f"thing {k}" for k in range(15)}
    assert group["ece"] < group["raw_ece"]
    assert "| 2017-02-01 | 15 |" in calibration_study.to_markdown(report)


def test_the_report_s_section_counts_what_was_stated_and_what_happened() -> None:
    learnt, now = cutoff(1), cutoff(2)
    few = tuple(replace(past, last=3.0) if k == 0 else past for k, past in enumerate(now.past))
    found = reliability.compared([learnt], replace(now, past=few))
    assert found is not None
    assert (found["behaviours"], found["abstained"], found["pairs"]) == (15, 1, 14)
    assert sum(each["users"] for each in found["bins"]) == 14 * 600
    for each in found["bins"]:
        if each["users"] > 300:
            assert each["stated"] == pytest.approx(each["happened"], abs=0.1)
    page = report.page({
        "snapshot": "s", "source": "x", "households": 600, "synthetic": False,
        "as_of": "2017-02-01", "trained_as_of": "2017-02-01", "demographics": False,
        "reliability": found,
    })  # fmt: skip
    assert "Stated for 14 of 15 behaviours (1 abstained)" in page
    assert "| best 100% |" in page
    nothing = tuple(replace(past, last=3.0) for past in now.past)
    assert reliability.compared([learnt], replace(now, past=nothing)) is None
