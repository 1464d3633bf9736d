"""Rows of the probe table: what goes in comes out, in the order of the users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ray_jobs.evaluation import cost, msdp, outcomes, probe_table, sections
from ray_jobs.evaluation.bench import Found
from ray_jobs.evaluation.history import Receipts
from ray_jobs.evaluation.msdp import SCALES, Msdp
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.u_mlp import UMlpProbe
from ray_jobs.probes import probe
from ray_jobs.protocol import Protocol, Task


@pytest.fixture(scope="module")
def subject(protocol_at: Callable[..., Protocol]) -> Any:
    """As much of a subject as the rows without a trained model need."""
    protocol = protocol_at(users=90)
    users = [str(user) for user in protocol.everyone]

    def lines(texts: list[str]) -> np.ndarray:
        return np.array([[float(len(t)), float(t.count("E"))] for t in texts], np.float32)

    return SimpleNamespace(
        con=protocol.con, manifest=SimpleNamespace(as_of=protocol.cutoff), users=users,
        protocol=protocol, lines=lines,
    )  # fmt: skip


def test_a_modality_is_no_other_models_vector(tmp_path: Path) -> None:
    """ShopperBERT's may lie in the same snapshot: it is not after alignment, and in no sum."""
    vectors = {"behaviour": np.eye(4, 2), "shopper_bert": np.eye(4, 3), "tabular": np.eye(4, 1),
               "fused": np.eye(4)}  # fmt: skip
    manifest = SimpleNamespace(kinds=dict.fromkeys(vectors), checkpoints={})
    place = SimpleNamespace(root=tmp_path)
    one: Any = SimpleNamespace(manifest=manifest, vectors=vectors.get, workspace=place)
    assert probe_table.modalities(one) == ["behaviour", "tabular"]
    assert probe_table.concatenation(one).shape == (4, 3)
    rows = probe_table.rows(one, None)
    named = [name for name in rows if "after alignment" in name]
    assert named == ["behaviour, after alignment", "tabular, after alignment"]
    theirs = {name: row for name, row in rows.items() if "ShopperBERT" in name}
    assert list(theirs) == ["ShopperBERT, LR", "ShopperBERT, U-MLP"]
    assert all(row.vectors() is vectors["shopper_bert"] for row in theirs.values())
    assert [row.model for row in theirs.values()] == [None, UMlpProbe]
    del manifest.kinds["shopper_bert"]
    assert not [name for name in probe_table.rows(one, None) if "ShopperBERT" in name]


def test_fused_vectors_are_probed_at_both_scales(tmp_path: Path) -> None:
    """What one small dimension knows is lost at a global scale, and found by its z-score."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 3)) * [100, 1e-4, 0] + 7
    users = [f"u{n}" for n in range(300)]
    task = Task("A", "t", None, np.array(users, object), vectors[:, 1] > 7)
    one: Any = SimpleNamespace(
        manifest=SimpleNamespace(kinds={"fused": 1}, checkpoints={}), vectors=lambda kind: vectors,
        workspace=SimpleNamespace(root=tmp_path),
    )  # fmt: skip
    rows = probe_table.rows(one, None)
    assert [name for name in rows if "z-score" in name] == ["fused, z-score per dimension"]
    scored = rows["fused, z-score per dimension"].vectors()
    assert scored.mean(0) == pytest.approx(0, abs=1e-6)
    assert scored.std(0) == pytest.approx([1, 1, 0])
    globally, each = (
        probe_table.measure(rows[name], users, [task], 2)["A"]["auc"]
        for name in ("fused", "fused, z-score per dimension")
    )
    assert globally < 0.6 and each > 0.95


def test_blocks_weigh_alike() -> None:
    rng = np.random.default_rng(0)
    small, large = rng.normal(size=(50, 3)) * 0.01, rng.normal(size=(50, 5)) * 100 + 7
    side = probe_table.blocks([small, large])
    assert side.shape == (50, 8) and side[:, :3].std() == pytest.approx(side[:, 3:].std(), rel=0.01)
    assert probe_table.blocks([np.ones((4, 2))]).tolist() == [[0, 0]] * 4


def test_rows_of_hand_made_and_counted_features(subject: Any) -> None:
    n, receipts = len(subject.users), Receipts(subject.con)
    assert probe_table.hand_made(subject).shape == (n, 42 + 3 * len(receipts.categories))
    text = probe_table.purchase_text(subject)
    assert text.shape == (n, 2) and np.isfinite(text).all()
    types = len(probe_table.line_weights(subject.con, subject.manifest.as_of, subject.users)[1])
    assert probe_table.svd(subject).shape == (n, types)
    even = probe_table._even(np.array([[0.0, 5.0], [100.0, 5.0], [-3.0, 5.0]]))
    assert even.mean(0) == pytest.approx([0, 0]) and np.abs(even[:, 1]).max() < 1e-9


def test_other_systems_join_by_user_id(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["b", "a"], "embedding": [[1.0, 2.0], [3.0, 4.0]]})
    pq.write_table(table, tmp_path / "CoLES_256.parquet")
    vectors = probe_table.others(tmp_path / "CoLES_256.parquet", ["a", "b", "new"])
    assert vectors.tolist() == [[3, 4], [1, 2], [2, 3]]


def test_more_columns_than_rows_change_nothing() -> None:
    """The rotation into the span of the fitted rows against the same vectors with zeros added."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 30)).astype(np.float64)
    labels = x[:, 0] + rng.normal(size=200) > 0
    users = [f"u{n}" for n in range(200)]
    task = Task("A", "t", None, np.array(users, object), labels)
    wide = np.concatenate([x, np.zeros((200, 400))], 1)
    scale = x.std() / wide.std()  # the global scale counts the zeros, too
    narrow = probe(x, users, [task], splits=2)["A"]
    rotated = probe(wide * scale, users, [task], splits=2)["A"]
    assert rotated["auc"] == pytest.approx(narrow["auc"], abs=0.03)
    assert set(narrow) == {"auc", "ks", "precision_at_k", "tasks"}


def test_boosted_trees_stand_in_for_the_regression() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    labels = np.abs(x[:, 0]) > 1  # no line separates this
    users = [f"u{n}" for n in range(400)]
    task = Task("A", "t", None, np.array(users, object), labels)
    linear = probe(x, users, [task], splits=2)["A"]["auc"]
    assert probe(x, users, [task], splits=2, model=probe_table.boosted)["A"]["auc"] > linear + 0.2


def test_u_mlp_learns_what_no_line_separates_and_repeats_itself() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 4))
    users = [f"u{n}" for n in range(1500)]
    task = Task("A", "t", None, np.array(users, object), np.abs(x[:, 0]) > 1)
    linear = probe(x, users, [task], splits=1)["A"]["auc"]
    found = probe(x, users, [task], splits=1, model=UMlpProbe)["A"]
    assert found["auc"] > linear + 0.2
    assert probe(x, users, [task], splits=1, model=UMlpProbe)["A"] == found


def test_u_mlp_validates_on_one_of_three_positives() -> None:
    """The rarest task that is probed at all: neither side of the split may be without one."""
    x = np.random.default_rng(0).normal(size=(490, 3))
    labels = np.zeros(490, bool)
    labels[[7, 100, 300]] = True
    scores = UMlpProbe().fit(x, labels).decision_function(x)
    assert scores.shape == (490,) and np.isfinite(scores).all()


def test_msdp_foresees_the_shares_of_the_weeks_that_follow(subject: Any) -> None:
    counts = msdp.weekly_counts(subject)
    receipts = Receipts(subject.con)
    assert counts.shape[::2] == (len(subject.users), len(receipts.categories))
    row, _, _ = receipts.bought(subject.manifest.as_of, subject.users)
    assert counts.sum() == len(row)

    model, weeks = Msdp(3, dim=8), torch.rand(2, 12, 3).round()
    ahead = SCALES[1]
    states = model(weeks)
    wanted = []
    for b in range(2):
        for t in range(4, 12 - ahead):
            future = weeks[b, t + 1 : t + 1 + ahead].sum(0)
            if future.sum() > 0:
                logs = model.foresee[1](states[b, t]).log_softmax(-1)
                wanted.append(-(future / future.sum() * logs).sum())
    assert model.loss(weeks, 1).item() == pytest.approx(torch.stack(wanted).mean().item(), abs=1e-5)
    trained, raw = msdp.fitted(counts, steps=40), msdp.fitted(counts, steps=0)
    batch = torch.from_numpy(counts)
    assert trained.loss(batch, 2) < raw.loss(batch, 2) - 0.1


def test_a_row_that_five_weeks_of_history_cannot_teach_is_left_out_and_told(
    subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = msdp.weekly_counts(subject)[:, :5]
    rows = {"MSDP": probe_table.Row(lambda: msdp.fitted(counts)),
            "raw": probe_table.Row(lambda: counts[:, :, 0])}  # fmt: skip
    monkeypatch.setattr(probe_table, "rows", lambda subject, peers: rows)
    results = Results(tmp_path, [])
    one = SimpleNamespace(subject=subject, results=results, settings=Found(splits=1), peers=None)
    subject.tasks = subject.protocol.purchases()[:1]
    found = sections.SECTIONS["probes"](one)  # type: ignore[arg-type]
    assert list(found["probes"]) == ["raw"]
    assert found["probes_left_out"] == ["MSDP: 5 weeks of history are too few to learn from."]


def test_a_user_is_coloured_by_the_rarest_outcome(subject: Any) -> None:
    labels = dict(
        zip(subject.users, outcomes.outcome_labels(subject.protocol.tasks(), subject.users),
            strict=True)
    )  # fmt: skip
    dog = next(task for task in subject.protocol.purchases() if task.name == "DOG FOODS")
    said = {labels[user] for user in dog.users[dog.labels]}
    assert "dog foods" in said and outcomes.NONE not in said


def test_stage_times_take_the_latest_run(tmp_path: Path) -> None:
    import os

    for n, (name, text) in enumerate({
        "embed-1.json": '{"seconds": 10.0, "num_users": 500}',
        "embed-2.json": '{"seconds": 5.0, "num_users": 500}',
        "train-search-3.json": '{"seconds": 9.0, "samples_seen": 64, "step_seconds": 2.0}',
        "train-tabular-5.json": '{"seconds": 7.0, "samples_seen": 64, "together": ["a", "b"]}',
        "ingest-4.json": '{"seconds": 1.0}',
    }.items()):  # fmt: skip
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (n, n))
    found = cost.stage_times(tmp_path)
    assert found["embed"]["per_second"] == 100 and found["train-search"]["per_second"] == 32
    assert found["train-search"]["seconds"] == 9, "with what is done before and after the steps"
    assert found["ingest"]["per_second"] is None
    of_two = found["train-tabular"]
    assert of_two["seconds"] is None and of_two["per_second"] is None, "they are not its own"
