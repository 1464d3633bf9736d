"""The sections about seed users, through the verb: prompt tokens scored, told, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray import cloudpickle

from encoders.alignment import AlignmentConfig, FoundModel
from encoders.behaviour import BehaviourConfig
from encoders.prompt import ANCHORED, PAPER, tune
from encoders.query import QueryEncoder
from encoders.text import TextConfig
from ray_jobs import evaluate, metrics
from ray_jobs.evaluate import Evaluate
from ray_jobs.evaluation import few_shot_sections, paper, sections
from ray_jobs.evaluation.demands import WORDINGS, read
from ray_jobs.evaluation.few_shot import draw
from ray_jobs.evaluation.few_shot_methods import BY_TOKENS, QUICK
from ray_jobs.evaluation.subject import EARLIER
from ray_jobs.evaluation.zero_shot import base_rates
from ray_jobs.protocol import CATEGORIES, Protocol, Task

USERS, D = 120, 6


@pytest.fixture
def model(tiny_llama: str) -> FoundModel:
    """A text tower over a tiny language model; LoRA has moved, as if it were trained."""
    torch.manual_seed(0)
    behaviour = BehaviourConfig(
        line_width=8, dim=8, line_hidden=8, temporal_dim=8, layers=1, heads=2, windows=4,
        pretrain_windows=4, forecast_windows=1,
    )  # fmt: skip
    text = TextConfig(model=tiny_llama, dim=D, hidden=8, lora_rank=2, max_tokens=60)
    model = FoundModel(
        AlignmentConfig(behaviour, text=text, windows=4, fusion_dim=8, fusion_layers=1,
                        fusion_heads=2)
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape)
    return model


@pytest.fixture
def subject(
    model: FoundModel, protocol_at: Callable[..., Protocol], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A shop whose households buy cheese by coordinate 1; only that task is asked."""
    protocol = protocol_at(users=USERS)
    when = protocol.cutoff
    task = protocol.purchase("CHEESE")
    vectors = np.random.default_rng(0).standard_normal((USERS, D)).astype(np.float32)
    vectors[:, 1] += 2.0 * task.labels
    manifest = SimpleNamespace(
        id="s1", space="x", as_of=when, trained_as_of=when, num_users=USERS, synthetic=False,
        source="complete-journey", checkpoints={"alignment": None}, horizon_days=28,
    )  # fmt: skip
    encoder = QueryEncoder(model, None)  # type: ignore[arg-type]
    one = SimpleNamespace(
        manifest=manifest, identity=["s1"], users=task.users.tolist(), task=task,
        dataset=SimpleNamespace(source="complete-journey", demographics=False), encoder=encoder,
        protocol=SimpleNamespace(left_out={}, reaches=lambda days: True), tasks=[task],
        categories=CATEGORIES,
        earlier=protocol_at(when - EARLIER, users=USERS),
        vectors=lambda kind: vectors, query_encoder=lambda rewriter: encoder,
    )  # fmt: skip
    monkeypatch.setattr(evaluate.Subject, "open", lambda place, snapshot: one)
    return one


def settings(tmp_path: Path, **more: Any) -> Evaluate:
    given = {"draws": 1, "parallel": 1, **more}
    return Evaluate(workspace=str(tmp_path), out=str(tmp_path / "out"), **given)


def rows(page: str, title: str) -> dict[str, list[str]]:
    """First cell → the others, of the table below a heading."""
    lines = page[page.index(title) :].split("\n\n")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row[0]: row[1:] for row in cells}


def by_hand(subject: Any, task: Task, config: Any) -> tuple[float, float]:
    """AUC and precision@k of the only draw of 5 + 5, seeds left out."""
    users = subject.vectors("fused")
    seeds = draw(task.labels, (0, 0), 5)
    given = users[seeds.positives], users[seeds.negatives], users
    prompt = tune(subject.encoder.model, task.sentence or "", *given, config)
    left = np.setdiff1d(np.arange(USERS), seeds.all)
    scores, labels = (users @ prompt.query_D)[left], task.labels[left]
    return metrics.auc(scores, labels), metrics.precision_at(scores, labels)


def test_prompt_tokens_are_scored_and_shown_among_the_methods(tmp_path: Path, subject: Any) -> None:
    found = evaluate.run(settings(tmp_path, only="prompt-tokens"))
    page = (tmp_path / "out" / "report.md").read_text()
    told = rows(page, "### 5 + 5 seeds, asked by the category's name")
    assert list(told) == [*QUICK, *BY_TOKENS]
    for name, config in zip(BY_TOKENS, (ANCHORED, PAPER), strict=True):
        auc, precision = by_hand(subject, subject.task, config)
        assert told[name][0] == f"{auc:.3f} / {precision:.3f} (1)" and told[name][1] == "–"
    assert told["prompt tokens, anchored"][0] != told["prompt tokens, eq. 16"][0]
    assert all("[" in cells[2] and "[" in cells[3] for n, cells in told.items() if n != "ours")
    for title in ("with hard negatives, asked in other words", "More seeds, asked in other words"):
        assert title in page
    assert "| A | prompt tokens, eq. 16 |" in page and "| – | – |" in page  # few for 100 + 100
    assert paper.FEW_SHOT["FOUND"][0] in page and "were not measured" not in page
    first = found["prompt_tokens"]["trials"][0]["methods"]["prompt tokens, eq. 16"]["A"]
    rate = base_rates(subject.earlier)["A CHEESE"]  # as many are chosen as did it then
    hits = first["precision"] * round(rate * (USERS - 10))
    assert first["recall"] * (subject.task.labels.sum() - 5) == pytest.approx(hits)
    assert (tmp_path / "out" / "few_shot.png").stat().st_size > 10_000


def test_parts_that_were_measured_are_found_by_the_section(
    tmp_path: Path, subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate.run(settings(tmp_path, only="few-shot"))
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Prompt tokens (eq. 16) were not measured" in page and "| U-MLP |" in page
    assert "prompt_tokens" not in found and found["few_shot"]["map"] == subject.task.sentence

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(few_shot_sections, "measure", never)
    (tmp_path / "out" / "few_shot.png").unlink()
    again = evaluate.run(settings(tmp_path, only="few-shot"))
    assert again["few_shot"] == found["few_shot"]
    assert (tmp_path / "out" / "few_shot.png").exists()
    with pytest.raises(AssertionError, match="measured again"):
        evaluate.run(settings(tmp_path, only="few-shot", draws=2))


def test_without_a_future_to_check_against_there_is_no_section(
    tmp_path: Path, subject: Any
) -> None:
    subject.protocol.left_out, subject.tasks = dict.fromkeys("ABCD", 28), []
    found = evaluate.run(settings(tmp_path, only="few-shot,prompt-tokens"))
    assert "few_shot" not in found and "prompt_tokens" not in found
    assert "A (28 days)" in (tmp_path / "out" / "report.md").read_text()


def test_seed_users_belong_to_the_one_command_and_prompt_tokens_take_longer(
    tmp_path: Path, subject: Any
) -> None:
    assert "few-shot" in settings(tmp_path).sections
    assert "prompt-tokens" not in settings(tmp_path).sections
    assert "prompt-tokens" in settings(tmp_path, full=True).sections
    parts = cloudpickle.loads(cloudpickle.dumps(sections.PARTS))
    assert set(parts) <= set(sections.SECTIONS)
    assert set(parts) - {"few-shot"} == set(sections.LONG)


def test_who_reads_no_sentence_is_measured_once_for_both_wordings(
    tmp_path: Path, subject: Any
) -> None:
    found = evaluate.run(settings(tmp_path, only="few-shot"))["few_shot"]["trials"]
    told = {(t["wording"], t["seeds"], t["hard"]): t["methods"] for t in found}
    measured = {path.name.rpartition("-")[0] for path in (tmp_path / "out" / "results").iterdir()}
    for name in QUICK:
        one, other = (told[wording, 10, False][name]["A"] for wording in WORDINGS)
        reads = name in ("sentence", "ours")
        assert (f"few-shot-paraphrase-10-{name.replace(' ', '-')}" in measured) == reads
        assert f"few-shot-paraphrase-5-hard-{name.replace(' ', '-')}" in measured
        assert reads or one == other
    written = read("complete-journey")["paraphrase"]
    assert set(CATEGORIES) <= set(written), "the same tasks in both wordings"


def test_the_map_names_everybody_in_full() -> None:
    labels, negatives = np.array([True, False, False, False]), np.array([2])
    assert few_shot_sections.kinds(labels, negatives) == [
        "did it", "did not", "hard negative", "did not",
    ]  # fmt: skip
