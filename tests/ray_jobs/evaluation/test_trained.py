"""Sections that train: which rows in how many seeds, told as they were measured."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from ray_jobs import presets
from ray_jobs.evaluation import fusion, planted, report, trained, unseen
from ray_jobs.evaluation.ablations import STEPS, VARIANTS, Trainings, Variant
from ray_jobs.evaluation.bench import Bench, Found
from ray_jobs.evaluation.results import Results
from ray_jobs.protocol import CATEGORIES

HEAD = {"snapshot": "20171106_x_1", "source": "complete-journey", "synthetic": False,
        "households": 2456, "as_of": "2017-11-06T00:00", "demographics": False,
        "trained_as_of": "2017-11-06"}  # fmt: skip
FINAL = datetime(2017, 11, 6, tzinfo=UTC)
CHOSEN_AT = datetime(2017, 9, 11, tzinfo=UTC)
LAPTOP = presets.laptop()
GROUPS = {"zero_shot": "ABCD", "paraphrase": "ABCD", "probe": "ABCDE"}


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Training replaced: a variant's figures are its number of changes and its seed."""
    asked: list[str] = []

    def prepare(trainings: Trainings, variants: Iterable[Variant]) -> None:
        asked.extend(one.name for one in variants)

    def subject(trainings: Trainings, variant: Variant, seed: int) -> Any:
        assert trainings.as_of == datetime(2017, 9, 11, tzinfo=UTC), "nothing is chosen later"
        known = f"{len(variant.changes)}-{variant.name}-{seed}".replace("/", " ")
        return SimpleNamespace(identity=[known], manifest=SimpleNamespace(id=known))

    def brief(made: Any, written: Any, splits: int) -> dict[str, Any]:
        auc = {"auc": int(made.manifest.id.split("-")[0]) / 100 + int(made.manifest.id[-1]) / 1000}
        row = {**auc, "accuracy": 0.9, "precision": 0.5, "recall": None}
        return {part: dict.fromkeys(groups, row) for part, groups in GROUPS.items()}

    monkeypatch.setattr(Trainings, "prepare", prepare)
    monkeypatch.setattr(Trainings, "subject", subject)
    monkeypatch.setattr(trained, "_brief", brief)
    return asked


def bench(tmp_path: Path, **settings: Any) -> Bench:
    manifest = SimpleNamespace(as_of=FINAL, kinds={"behaviour": 0, "tabular": 0, "fused": 0})
    dataset = SimpleNamespace(source="complete-journey", demographics=False)
    subject: Any = SimpleNamespace(manifest=manifest, dataset=dataset, categories=CATEGORIES)
    return Bench(subject, Results(tmp_path, ["s1"]), Found(**settings))


def test_headline_rows_have_several_seeds(tmp_path: Path, prepared: list[str]) -> None:
    found = trained.of_ablations(bench(tmp_path, seeds=3))["ablations"]
    lacking = {"w/o search text", "w/o replaced tokens of search text (eq. 12)"}
    assert not lacking & set(found["variants"]), "these data have no searches"
    headline = {one.name for one in VARIANTS if one.headline}
    assert len(headline) == 5
    seeds = {name: len(rows) for name, rows in found["variants"].items()}
    assert seeds == {name: 3 if name in headline else 1 for name in seeds}
    assert [*found["variants"], *found["steps"]] == prepared
    assert [row["probe"]["A"]["auc"] for row in found["variants"]["full"]] == [0.0, 0.001, 0.002]
    faithful = found["steps"]["faithful"][0]["probe"]["A"]["auc"]
    assert faithful == len(STEPS[0].changes) / 100
    page = report.page({**HEAD, "ablations": found})
    assert "| full | 3 | 0.001 ± 0.001" in page and f"| faithful | 1 | {faithful:.3f}" in page


def test_the_way_to_ours_belongs_to_our_preset_alone(tmp_path: Path, prepared: list[str]) -> None:
    found = trained.of_ablations(bench(tmp_path, seeds=1, preset="paper"))["ablations"]
    assert found["steps"] == {} and "w/o habits" not in found["variants"]
    assert all(len(rows) == 1 for rows in found["variants"].values())
    assert "From the faithful" not in report.page({**HEAD, "ablations": found})


def test_folds_and_worlds_are_parts_with_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def world(one: Any, root: Path, preset: Any, workers: int, *, seed: int) -> dict[str, Any]:
        made.append(f"{one.spec}, seed {seed}")
        return {"plant": one.plant, "removed": one.removed, "users": one.users, "positives": 9,
                "oracle": 0.8, "name": 0.7, "free words": 0.6}  # fmt: skip

    monkeypatch.setattr(planted, "measure", world)
    monkeypatch.setattr(Trainings, "prepare", lambda trainings, variants: None)
    one = bench(tmp_path, users=300)
    parts = {name: trained.PARTS[name](one) for name in ("unseen", "planted")}
    folds = [fold.name for fold in unseen.folds()]
    assert list(parts["unseen"]) == [f"{f}, seed {n}" for n in range(3) for f in folds]
    specs = [world.spec for world in planted.worlds(300)]
    assert list(parts["planted"]) == [
        f"{s}, seed {n}" for n in range(one.settings.seeds) for s in specs
    ]
    found = trained.of_planted(one)
    assert trained.of_planted(one) == found and made == list(parts["planted"]), "kept on disk"
    page = report.page({**HEAD, **found})
    assert "with 3 seeds, 300 users" in page and "| nothing | 9 | 0.800" in page


def test_unseen_categories_are_told_by_reading_with_their_spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(trainings: Trainings, fold: Variant, seed: int) -> dict[str, Any]:
        def group(auc: float) -> dict[str, Any]:
            row = {"auc": auc + seed / 10, "precision_at_k": 0.5}
            return {"A": {name: row for name in fold.changes["unseen"]}}

        return dict(zip(unseen.READINGS, map(group, (0.8, 0.6, 0.7)), strict=True))

    monkeypatch.setattr(Trainings, "prepare", lambda trainings, variants: None)
    monkeypatch.setattr(unseen, "measure", measure)
    found = trained.of_unseen(bench(tmp_path, seeds=2))
    page = report.page({**HEAD, **found})
    assert "| words and past purchases | A | 20 | 0.850 ± 0.071 | 0.500 ± 0.000 |" in page
    assert "| words, without feedback of the past | A | 20 | 0.650 ± 0.071 |" in page
    assert "cheese 0.650" in page and "words alone" not in page
    assert "stays in the users' vectors, for all three readings" in page
    assert "| words, read as known categories | A | 20 | 0.750 ± 0.071 |" in page


def test_fusion_is_told_beside_its_parts_on_both_worlds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training replaced: fused is ahead of its parts at a small temperature and nowhere else."""
    made: list[tuple[str, str]] = []

    def subject(trainings: Trainings, variant: Variant, seed: int) -> Any:
        assert trainings.as_of <= datetime(2024, 8, 26, tzinfo=UTC) and trainings.preset == LAPTOP
        assert trainings.source != "complete-journey" or trainings.as_of == CHOSEN_AT
        known = f"{trainings.source} {variant.name}".replace("/", " ")
        return SimpleNamespace(identity=[known], manifest=SimpleNamespace(id=known))

    def measure(one: Any, splits: int) -> dict[str, Any]:
        made.append(one.manifest.id)
        ahead = 0.01 if "temperature" in one.manifest.id else -0.02
        return {"fused": {"auc": 0.7 + ahead, "directions": 1.5},
                "behaviour": {"auc": 0.6, "directions": 2.0},
                "concatenation": {"auc": 0.7, "directions": 2.5}}  # fmt: skip

    monkeypatch.setattr(Trainings, "prepare", lambda trainings, variants: list(variants))
    monkeypatch.setattr(Trainings, "subject", subject)
    monkeypatch.setattr(fusion, "measure", measure)
    one = bench(tmp_path, users=300)
    found = trained.of_fusion(one)
    sources = [world["source"] for world in found["fusion"]["worlds"]]
    assert sources == ["complete-journey", "synthetic:users=300,seed=0"]
    assert trained.of_fusion(one) == found and len(made) == len(trained.PARTS["fusion"](one))
    page = report.page({**HEAD, **found})
    assert page.count("| does not hold |") == 2 * 5 and page.count("| holds |") == 2 * 2
    assert "| 80 steps | 0.6800 | 0.6000 | 0.7000 | -0.0200 | does not hold | 1.5 | 2.5 |" in page
    assert "seed=0, as of 2024-08-26 — **synthetic data**" in page
    assert (tmp_path / "fusion.png").exists() and "(fusion.png)" in page


def test_what_travels_to_other_processes_can() -> None:
    sent = cloudpickle.loads(cloudpickle.dumps((Bench, trained.PARTS, Found(seeds=2))))
    assert sent[0] is Bench and sent[2].seeds == 2 and set(sent[1]) == set(trained.PARTS)
