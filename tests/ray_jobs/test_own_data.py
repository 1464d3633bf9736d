"""A snapshot of mapped files: without prices, baskets or coupons, its search log beginning late."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pytest

from feature_repo.errors import InputError
from feature_repo.settings import Workspace
from ray_jobs import evaluate, pipeline, rewriting_study
from ray_jobs.build_features import build, ingest
from ray_jobs.evaluate import Evaluate
from ray_jobs.evaluation.subject import Subject
from ray_jobs.rewriting_study import RewritingStudy
from ray_jobs.training_frames import Run
from ray_jobs.workers import Workers

MAPPING = """
events:
  - path: orders.parquet
    source: bill
    event_id: order
    user_id: customer
    timestamp: at
    item_id: sku
    text: title
    categories: [division, family]
profiles: [{path: customers.parquet, user_id: customer, timestamp: since, categorical: [age]}]
searches: [{path: searches.parquet, user_id: customer, timestamp: at, text: query}]
"""


@pytest.fixture(scope="module")
def mapped(
    tmp_path_factory: pytest.TempPathFactory, bench: ModuleType, world: Any, tiny_presets: None
) -> tuple[Workspace, str]:
    """A workspace of mapped files and the id of its snapshot."""
    folder = tmp_path_factory.mktemp("own")
    con = duckdb.connect()
    for name in ("events", "items", "profiles", "searches"):
        con.register(name, getattr(world, name))
    con.execute(
        f"""COPY (SELECT event_id AS "order", user_id AS customer, timestamp AS at, item_id AS sku,
                 text AS title, categories[1] AS division, categories[2] AS family
                 FROM events JOIN items USING (item_id) WHERE source = 'bill')
            TO '{folder}/orders.parquet';
            COPY (SELECT user_id AS customer, timestamp AS since, '45' AS age FROM profiles)
            TO '{folder}/customers.parquet';
            COPY (SELECT user_id AS customer, timestamp AS at, text AS query FROM searches
                 WHERE timestamp >= '{bench.AS_OF}') TO '{folder}/searches.parquet'"""
    )
    con.close()
    (folder / "mapping.yaml").write_text(MAPPING)
    workspace = Workspace(folder / "workspace")
    dataset = ingest(workspace, f"files:{folder / 'mapping.yaml'}", demographics=False)
    build(workspace, dataset, bench.AS_OF)
    shared = Run(workspace, dataset, bench.AS_OF, bench.tiny_preset(), 0, Workers())
    return workspace, pipeline.train_and_embed(shared)


def settings(mapped: tuple[Workspace, str], out: Path, **more: Any) -> Evaluate:
    workspace, snapshot = mapped
    given: dict[str, Any] = {"splits": 1, "draws": 1, "parallel": 1, **more}
    return Evaluate(workspace=str(workspace.root), snapshot=snapshot, out=str(out), **given)


def test_the_suite_found_asks_for_the_datas_own_headings(
    mapped: tuple[Workspace, str], bench: ModuleType, tmp_path: Path
) -> None:
    found = evaluate.run(settings(mapped, tmp_path, only="zero-shot,lookalikes,cost"))
    kept = json.loads((tmp_path / "report.json").read_text())
    assert {"zero_shot", "lookalikes", "cost"} <= set(kept)
    asked = found["zero_shot"]["sentence"]
    assert set(asked) == {"A", "D"}, "no coupons, nobody new forty times, and no profile columns"
    assert [row["task"] for row in asked["D"]["each"]] == ["lapse"], "no prices"
    names = {row["task"] for row in asked["A"]["each"]}
    subject = Subject.open(*mapped)
    counted = subject.con.sql(
        f"""SELECT categories[2] FROM known_events JOIN items USING (item_id)
        WHERE timestamp < '{bench.AS_OF - 8 * bench.WEEK}' GROUP BY 1 ORDER BY count(*) DESC, 1
        LIMIT 20"""
    ).fetchall()
    assert names == {name for (name,) in counted} and len(names) == 20
    methods = found["zero_shot"]
    assert all(row["A"]["auc"] is not None for row in methods.values())
    assert methods["LightGBM per task (reference)"]["A"]["auc"] > 0.5
    assert methods["past 26-week count"]["A"]["auc"] > methods["chance"]["A"]["auc"] + 0.1
    page = (tmp_path / "report.md").read_text()
    assert "C (56 days)" in page and "nan" not in page


@pytest.mark.slow
def test_its_other_sections_need_no_categories_that_are_known_beforehand(
    mapped: tuple[Workspace, str], tmp_path: Path
) -> None:
    found = evaluate.run(settings(mapped, tmp_path, only="probes,few-shot,map,reliability"))
    assert set(found["probes"]["fused"]) == {"A", "D", "dim"} and found["figures"]
    trials = {(one["seeds"], one["hard"]): one for one in found["few_shot"]["trials"]}
    assert trials[5, False]["methods"]["ours"]["A"]["tasks"] > 1 and found["few_shot"]["map"]
    assert trials[100, False]["methods"]["ours"] == {}, "of 120 users"
    assert found["reliability"] is None, "there is no earlier snapshot"
    assert "nan" not in (tmp_path / "report.md").read_text()


def test_the_other_suite_names_the_data_that_it_is_defined_on(
    mapped: tuple[Workspace, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="one4all are defined on complete-journey.*suite found"):
        evaluate.run(settings(mapped, tmp_path, suite="one4all"))


DEMANDS = {
    "categories": {"coffee": ["who cannot start without an espresso", "a pot of earl grey"]},
    "behaviours": {"lapse": ["who is drifting away"], "top spend": ["the big wallets"]},
    "others": {"pets": ["somebody with a kitten"]},
}


def study(mapped: tuple[Workspace, str], out: Path, demands: Path | None) -> dict[str, Any]:
    workspace, snapshot = mapped
    return rewriting_study.run(
        RewritingStudy(
            workspace=str(workspace.root), snapshot=snapshot, out=str(out),
            demands=None if demands is None else str(demands),
        )
    )  # fmt: skip


def test_rewriters_are_measured_on_ones_own_demands(
    mapped: tuple[Workspace, str], tmp_path: Path
) -> None:
    path = tmp_path / "demands.json"
    path.write_text(json.dumps(DEMANDS))
    report = study(mapped, tmp_path, path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    kept = json.loads((tmp_path / "rewriting.json").read_text(), parse_constant=refuse)
    assert kept == report and set(report) == {"none", "catalogue", rewriting_study.PLAIN}
    read = report["none"]
    assert set(read) == {"A", "D", "others"}, "no coupons, and too few new buyers"
    assert set(read["D"]["each"]) == {"lapse"}, "no prices"
    (task,) = read["A"]["each"].values()
    assert [row["demand"] for row in task] == DEMANDS["categories"]["coffee"]
    assert 0 <= read["A"]["auc"] <= 1 and "nan" not in (tmp_path / "rewriting.md").read_text()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "demands: nobody wrote any for files:.*--demands"),
        ("no JSON", "demands: .*demands.json: the file: Invalid JSON"),
        ({"categories": {"coffee": ["  "]}}, r"categories\.coffee\.0: String should"),
        ({"categories": {"coffee": []}}, r"categories\.coffee: List should"),
        ({"category": {}}, "category: Extra inputs"),
        ({"behaviours": {"returns": ["x"]}}, "behaviours.*: Input should be 'coupon'"),
        ({"others": {"Coffees": ["x"]}}, "'Coffees' is no heading.*'coffee'"),
        ({"behaviours": {"top spend": ["x"]}}, "demands: nothing that they ask for can be told"),
    ],
)
def test_demands_that_cannot_be_measured_are_refused_by_name(
    content: Any, says: str, mapped: tuple[Workspace, str], tmp_path: Path
) -> None:
    path = tmp_path / "demands.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=says):
        study(mapped, tmp_path / "out", path if content is not None else None)
    with pytest.raises(InputError, match="demands: no such file"):
        study(mapped, tmp_path / "out", tmp_path / "absent.json")
    assert not (tmp_path / "out").exists()
