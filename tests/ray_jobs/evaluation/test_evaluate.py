"""The verb: sections chosen, written one by one, and kept by a later run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from feature_repo.errors import InputError
from ray_jobs import evaluate
from ray_jobs.evaluate import Evaluate
from ray_jobs.evaluation import reliability


@pytest.fixture
def subject(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A snapshot of which only the head of the report is read, and two sections."""
    when = datetime(2017, 9, 11, tzinfo=UTC)
    manifest = SimpleNamespace(
        id="s1", space="x", as_of=when, trained_as_of=when, num_users=3, source="complete-journey",
        synthetic=False, checkpoints={"alignment": None}, kinds={"fused": None}, horizon_days=28,
    )  # fmt: skip
    one = SimpleNamespace(
        manifest=manifest,
        identity=["s1"],
        dataset=SimpleNamespace(demographics=False),
        protocol=SimpleNamespace(left_out={}, reaches=lambda days: True),
    )
    monkeypatch.setattr(evaluate.Subject, "open", lambda place, snapshot: one)
    sections = {name: section(name) for name in ("zero-shot", "map", "planted")}
    suite = replace(evaluate.SUITES["found"], sections=sections, parts={})
    monkeypatch.setitem(evaluate.SUITES, "found", suite)
    return one


def section(name: str) -> Any:
    return lambda bench: {"figures": [name], name: bench.results.of(name, [], dict)}


def settings(tmp_path: Path, **more: Any) -> Evaluate:
    return Evaluate(workspace=str(tmp_path), out=str(tmp_path / "out"), **more)


def test_what_trains_is_asked_for_by_name_or_in_full(tmp_path: Path, subject: Any) -> None:
    assert settings(tmp_path).sections == ["zero-shot", "map"]
    assert settings(tmp_path, full=True).sections == ["zero-shot", "map", "planted"]
    assert settings(tmp_path, only="planted,zero-shot").sections == ["zero-shot", "planted"]
    with pytest.raises(ValidationError, match="expected some of zero-shot, map, planted, got 'x'"):
        settings(tmp_path, only="map,x")


def test_a_snapshot_that_reads_no_sentence_is_sent_to_the_other_suite(
    tmp_path: Path, subject: Any
) -> None:
    subject.manifest.checkpoints = subject.manifest.kinds = {"shopper_bert": None}
    with pytest.raises(InputError, match=r"suite: .*s1 holds \['shopper_bert'\].*--suite one4all"):
        evaluate.run(settings(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_later_run_keeps_the_sections_of_the_same_snapshot(tmp_path: Path, subject: Any) -> None:
    evaluate.run(settings(tmp_path, only="zero-shot"))
    evaluate.run(settings(tmp_path, only="map"))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"zero-shot", "map"} <= set(content) and "planted" not in content
    assert "# Snapshot s1" in (tmp_path / "out" / "report.md").read_text()
    subject.manifest.id = "s2"
    evaluate.run(settings(tmp_path, only="map"))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "zero-shot" not in content and content["snapshot"] == "s2"


def test_what_the_data_end_too_early_for_stands_in_the_head(tmp_path: Path, subject: Any) -> None:
    subject.protocol = SimpleNamespace(left_out={"C": 56}, reaches=lambda days: days < 28)
    found = evaluate.run(settings(tmp_path, only="map"))
    assert found["left_out"] == {"C": 56, "reliability": 28}
    assert "C (56 days), reliability (28 days)" in (tmp_path / "out" / "report.md").read_text()
    assert reliability.measure(subject) is None


def test_a_part_that_fails_leaves_the_sections_without_parts(
    tmp_path: Path, subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bench: Any, parts: Any, sections: Any) -> None:
        assert list(sections) == ["planted"]
        raise RuntimeError("no memory left")

    suite = replace(evaluate.SUITES["found"], parts={"planted": lambda bench: {}})
    monkeypatch.setitem(evaluate.SUITES, "found", suite)
    monkeypatch.setattr(evaluate.spread, "measure", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        evaluate.run(settings(tmp_path, only="planted,map"))
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "map" in content and "planted" not in content
