"""The page: our tables beside the paper's, quoted as such, synthetic data labelled."""

from __future__ import annotations

from typing import Any

from ray_jobs.evaluation import paper, report
from ray_jobs.evaluation.zero_shot import FIGURES

HEAD = {"snapshot": "20170911_x_1", "source": "complete-journey", "synthetic": False,
        "households": 2439, "as_of": "2017-09-11T00:00", "demographics": False,
        "trained_as_of": "2017-09-11"}  # fmt: skip
ROW: dict[str, Any] = {**dict.fromkeys(FIGURES, 0.5), "tasks": 20}


def test_sections_that_were_measured_are_shown_and_others_are_not() -> None:
    page = report.page(HEAD)
    assert page.startswith("# Snapshot 20170911_x_1") and "##" not in page
    methods = {"sentence": {"A": ROW, "B": {**ROW, "auc": None}}}
    page = report.page({**HEAD, "zero_shot": methods, "against_counts": {}})
    assert "## Zero-shot" in page and "| sentence | A | 20 | 0.500 |" in page
    assert "| sentence | B | 20 | – |" in page and "## Cost" not in page
    assert "88.6/83.7/94.1" in page and paper.NOTE in page


def test_a_report_without_group_e_says_why() -> None:
    probed = {"auc": 0.7, "ks": 0.3, "precision_at_k": 0.4}
    groups: dict[str, Any] = {**dict.fromkeys("ABCD", probed), "dim": 8}
    variant = [{part: dict.fromkeys("ABCD", ROW) for part in ("zero_shot", "paraphrase", "probe")}]
    ablations = {"preset": "best", "as_of": "2017-09-11", "variants": {"full": variant}}
    measured = {"probes": {"fused": groups}, "ablations": ablations}
    page = report.page({**HEAD, "demographics": True, **measured})
    assert page.count("E is left out") == 1 and "| 0.700 / 0.300 / 0.400 | – |" in page
    assert "| 0.500 | – |" in page
    page = report.page({**HEAD, "probes": {"fused": {**groups, "E": probed}}})
    assert "E is left out" not in page and "| 0.700 / 0.300 / 0.400 | – |" not in page


def test_the_head_tells_what_the_data_end_too_early_for() -> None:
    page = report.page({**HEAD, "left_out": {"C": 56, "reliability": 28}})
    assert "before so many days are over: C (56 days), reliability (28 days)." in page
    assert "Left out" not in report.page(HEAD)


def test_synthetic_data_are_labelled() -> None:
    world = {"plant": "search", "removed": True, "users": 3_000, "positives": 900, "oracle": 0.8,
             "name": 0.5, "free words": None}  # fmt: skip
    page = report.page(
        {**HEAD, "synthetic": True, "planted": {"preset": "best", "worlds": [[world]]}}
    )
    assert "**Synthetic data.**" in page and "Planted worlds — **synthetic data**" in page
    assert "| nothing | 900 | 0.800 | 0.500 | – |" in page and "hard negatives" not in page
    shown = {**world, "removed": False,
             "decoys": {"ours": {"auc": 0.65, "precision": 0.05, "holders": 0.8, "apart": 0.7},
                        "oracle": {"auc": 0.8, "precision": 0.05, "holders": 1.0, "apart": 1.0,
                                   "ours minus this": {"mean": -0.1, "low": -0.2, "high": 0.0}}},
             }  # fmt: skip
    better = {"auc": 0.7, "precision": 0.07, "holders": 0.9, "apart": 1}
    again = {**shown, "name": 0.6, "decoys": {**shown["decoys"], "ours": better}}
    worlds = [[shown, again], [world, world]]
    page = report.page({**HEAD, "planted": {"preset": "best", "worlds": worlds}})
    assert "| ours | 0.675 | 0.060 | 0.850 | 0.850 |  |" in page and "Shown by search" in page
    assert "| oracle | 0.800 | 0.050 | 1.000 | 1.000 | -0.100 [-0.200, +0.000] |" in page
    assert "| search | 900 | 0.800 | 0.550 ± 0.071 | – |" in page and "with 2 seeds" in page


def test_ablations_show_the_spread_over_seeds() -> None:
    chosen = {"accuracy": 0.9, "recall": None}
    one, two = ({"zero_shot": {"A": {"auc": value, "precision": value, **chosen}},
                 "paraphrase": {}, "probe": {}} for value in (0.70, 0.80))  # fmt: skip
    variants = {"full": [one, two], "w/o tabular": [one]}
    about = {"preset": "best", "as_of": "2017-09-11", "variants": variants}
    page = report.page({**HEAD, "ablations": about})
    assert "0.750 ± 0.071" in page and "| w/o tabular | 1 | 0.700 | –" in page
    assert "| full | 0.900 / 0.750 / – | – |" in page
    assert "From the faithful" not in page
    page = report.page({**HEAD, "ablations": {**about, "steps": {"faithful": [one]}}})
    told = page[page.index("From the faithful") :]
    assert "| faithful | 1 | 0.700" in told and "(full) | 2 | 0.750 ± 0.071" in told


def test_cost_tells_each_stage_its_own_seconds() -> None:
    times = {"seconds": 9.0, "step_seconds": 2.0, "amount": 64, "per_second": 32.0}
    stages = {"train-search": times, "embed": {**times, "step_seconds": None},
              "train-old": dict.fromkeys(times)}  # fmt: skip
    cost = {"parameters": {}, "stages": stages, "bytes_per_user": {"fused": 1024.0}}
    page = report.page({**HEAD, "cost": cost})
    assert "| train-search | 9.0 | 2.0 | 32 |" in page and "| embed | 9.0 | – | 32 |" in page
    assert "| train-old | – | – | – |" in page and "together" not in page


def test_a_fusion_that_nothing_was_asked_of_has_no_lead() -> None:
    kinds = {kind: {"auc": None, "directions": None} for kind in ("fused", "concatenation")}
    row = {"name": "0 steps", "kinds": kinds}
    world = {"source": "synthetic:users=100,seed=0", "as_of": "2024-08-26", "rows": [row]}
    page = report.page({**HEAD, "fusion": {"preset": "laptop", "worlds": [world]}})
    assert "| 0 steps | – | – | – | nothing to ask | – | – |" in page
    kinds = {**kinds, "fused": {"auc": 0.6, "directions": 2.0},
             "concatenation": {"auc": 0.6, "directions": 3.0}}  # fmt: skip
    world = {**world, "rows": [{**row, "kinds": kinds}]}
    page = report.page({**HEAD, "fusion": {"preset": "laptop", "worlds": [world]}})
    assert "| +0.0000 | holds | 2.0 | 3.0 |" in page and "outside the claim" not in page
    kinds = {**kinds, "language model on search text": {"auc": 0.9, "directions": 5.0}}
    world = {**world, "rows": [{**row, "kinds": kinds}]}
    page = report.page({**HEAD, "fusion": {"preset": "laptop", "worlds": [world]}})
    assert "| +0.0000 | holds | 2.0 | 3.0 |" in page, "another method is no part of the claim"
    assert "outside the claim: language model on search text 0.9000." in page


def test_the_papers_tables_have_a_cell_per_test_set() -> None:
    for quoted in (paper.ZERO_SHOT, paper.FEW_SHOT, paper.PROBES, paper.ABLATIONS):
        assert all(len(cells) == len(paper.TEST_SETS) for cells in quoted.values())
