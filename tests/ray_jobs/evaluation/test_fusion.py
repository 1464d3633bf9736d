"""The section of fusion: what is trained, what is asked, and over how much vectors spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from feature_repo import schema
from feature_repo.transforms import open_tables
from ray_jobs import presets
from ray_jobs.evaluation import ablations, fusion
from ray_jobs.evaluation.ablations import Trainings
from ray_jobs.evaluation.fusion import Row, bought_next, directions, rows

T = datetime(2017, 9, 11, tzinfo=UTC)
LAPTOP = presets.laptop()


def test_directions_count_those_of_equal_width_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    for equal in (1, 3, 6):
        cloud = np.zeros((20_000, 6))
        cloud[:, :equal] = rng.standard_normal((20_000, equal))
        assert directions(cloud) == pytest.approx(equal, rel=0.01)
        assert directions(7 * cloud @ turn + 40) == pytest.approx(directions(cloud))
    uneven = rng.standard_normal((20_000, 2)) * [1.0, 0.5]
    assert directions(uneven) == pytest.approx((1 + 0.25) ** 2 / (1 + 0.25**2), rel=0.02)
    assert np.isnan(directions(np.ones((5, 3), np.float32)))


def test_rows_differ_in_what_their_names_say() -> None:
    listed = rows(LAPTOP)
    own = LAPTOP.stages["alignment"].steps
    assert [row.name for row in listed] == [
        "0 steps, random start", f"{own} steps, random start", "0 steps", f"{own} steps",
        f"{4 * own} steps", f"{own} steps, temperature from 0.07",
        f"{4 * own} steps, temperature from 0.07",
    ]  # fmt: skip
    changed = [row.of(LAPTOP).of(LAPTOP) for row in listed]
    assert [each.stages["alignment"].steps for each in changed] == [row.steps for row in listed]
    learnt = [(each.temperature, each.learn_temperature) for each in changed]
    assert learnt == [(1.0, False)] * 5 + [(0.07, True)] * 2
    assert [each.fusion_start for each in changed] == ["random"] * 2 + ["even"] * 5
    pretraining = [{n: s for n, s in each.stages.items() if n != "alignment"} for each in changed]
    assert all(each == pretraining[0] for each in pretraining)
    assert Row(own).of(LAPTOP).of(LAPTOP).stages == LAPTOP.stages, "one row is the preset itself"


def test_the_claim_is_about_a_recipe_that_keeps_to_the_letter() -> None:
    assert fusion.faithful(presets.best()) == LAPTOP
    assert fusion.faithful(presets.paper()) == presets.paper()


def test_tasks_are_what_comes_after_the_date(shop: Callable[..., dict[str, pa.Table]]) -> None:
    tables = shop(users=400)
    users = [f"h{n}" for n in range(400)]
    tasks = {t.name: t for t in bought_next(open_tables(tables), T, users)}
    assert 3 <= len(tasks) <= 21
    events = tables["events"].to_pylist()
    for name, task in tasks.items():
        assert list(task.users) == users and 60 <= task.labels.sum() <= 340
        if name != "comes back":
            assert name != "FOOD", "more than half of the users buy any food"
            buyers = {e["user_id"] for e in events if e["item_id"] == name
                      and T <= e["timestamp"] < T + timedelta(days=28)}  # fmt: skip
            assert {u for u, did in zip(users, task.labels, strict=True) if did} == buyers


def test_nobody_buys_after_the_data_and_there_is_nothing_to_ask(
    shop: Callable[..., dict[str, pa.Table]],
) -> None:
    assert bought_next(open_tables(shop()), T + timedelta(days=400), ["h1", "h2"]) == []


def test_every_kind_and_their_concatenation_are_measured(
    shop: Callable[..., dict[str, pa.Table]],
) -> None:
    con, users = open_tables(shop(users=400)), [f"h{n}" for n in range(400)]
    one = bought_next(con, T, users)[0]
    rng = np.random.default_rng(0)
    knows = one.labels[:, None] + 0.1 * rng.standard_normal((400, 1))
    vectors = {"fused": rng.standard_normal((400, 4)), "behaviour": knows,
               "tabular": rng.standard_normal((400, 4)),
               "shopper_bert": rng.standard_normal((400, 9))}  # fmt: skip
    made: Any = SimpleNamespace(
        manifest=SimpleNamespace(kinds=dict.fromkeys(vectors), as_of=T), users=users, con=con,
        vectors=vectors.get, dataset=SimpleNamespace(source="complete-journey"), tasks=[one],
    )  # fmt: skip
    found = fusion.measure(made, splits=2)
    assert set(found) == {"fused", "behaviour", "tabular", "concatenation"}
    assert found["behaviour"]["auc"] > 0.99 > 0.65 > found["fused"]["auc"]
    assert found["concatenation"]["auc"] > 0.9, "it holds what any of them knows"
    assert fusion.kinds(made)["concatenation"].shape == (400, 1 + 4), "another model's is no part"
    assert found["behaviour"]["directions"] == pytest.approx(1)
    made.dataset.source = "synthetic:users=400,seed=0"
    assert fusion.measure(made, splits=1)["fused"]["auc"] is not None, "tasks of its own"


def test_where_users_search_the_language_model_reads_it(
    shop: Callable[..., dict[str, pa.Table]],
) -> None:
    """Of whoever will buy what is asked, the searches say so; those at the date or later, not."""
    tables, users = shop(users=400), [f"h{n}" for n in range(400)]
    one = bought_next(open_tables(tables), T, users)[0]
    past = [(user, T - timedelta(days=9), "yes" if did else "no")
            for user, did in zip(users, one.labels, strict=True) if user != "h0"]  # fmt: skip
    later = [(user, T, "no") for user in users]
    rows = [{"search_id": str(n), "user_id": user, "timestamp": at, "known_at": at, "text": text}
            for n, (user, at, text) in enumerate(past + later)]  # fmt: skip
    tables = {**tables, "searches": pa.Table.from_pylist(rows, schema=schema.SEARCHES)}

    def lines(texts: list[str]) -> np.ndarray:
        return np.array([[float(text == "yes"), float(text == "no")] for text in texts])

    noise = np.random.default_rng(0).standard_normal((400, 4))
    vectors = {"fused": noise, "behaviour": noise}
    made: Any = SimpleNamespace(
        manifest=SimpleNamespace(kinds=dict.fromkeys(vectors), as_of=T), users=users, tasks=[one],
        con=open_tables(tables), vectors=vectors.get, lines=lines,
        dataset=SimpleNamespace(source="complete-journey"),
    )  # fmt: skip
    told = fusion.kinds(made)[fusion.SEARCH_TEXT]
    assert told[0].tolist() == [0, 0], "somebody who never searched"
    assert told[1:, 0].tolist() == pytest.approx(one.labels[1:].astype(float).tolist())
    found = fusion.measure(made, splits=1)
    assert found[fusion.SEARCH_TEXT]["auc"] > 0.99 > 0.65 > found["fused"]["auc"]
    assert fusion.SEARCH_TEXT not in fusion.RIVALS


@pytest.mark.slow
def test_rows_train_and_are_measured(
    tmp_path: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of the faithful recipe on a made-up world: another temperature, other vectors."""
    monkeypatch.setattr(fusion, "_FEW", 20)  # of 120 users
    monkeypatch.setattr(fusion, "_SUBJECTS", 2)
    stages = {n: replace(s, steps=2, batch_size=8) for n, s in LAPTOP.stages.items()}
    preset = replace(LAPTOP, num_cutoffs=2, stages=stages)
    place = Trainings(ablations.place(tmp_path), bench.SPEC, True, bench.AS_OF, preset)
    found = []
    for row in (Row(0), Row(2), Row(2, 0.07)):
        made = place.subject(row.of(preset), seed=0)
        found.append(fusion.measure(made, splits=1))
        assert set(found[-1]) == {*made.manifest.kinds, "concatenation", fusion.SEARCH_TEXT}
        assert len(found[-1]) == 6
    spreads = [measured["fused"]["directions"] for measured in found]
    assert len(set(spreads)) == 3 and min(spreads) >= 1
    assert all(0 < row["auc"] < 1 for measured in found for row in measured.values())
