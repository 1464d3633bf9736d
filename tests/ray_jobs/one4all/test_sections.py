"""The suite's sections on a small market: measured once, told as a page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from feature_repo.errors import InputError
from ray_jobs.evaluate import Evaluate
from ray_jobs.evaluation.results import Results, plain
from ray_jobs.one4all import report, sections
from ray_jobs.one4all.pretraining import Pretrained
from ray_jobs.one4all.settings import KIND, Bench
from ray_jobs.one4all.tasks import Tasks

HEAD = {"snapshot": "s1", "source": "a market", "synthetic": True, "households": 72,
        "as_of": "2017-09-11T00:00:00"}  # fmt: skip


class Lines:
    """Made-up sentence vectors, as LineEncoder answers."""

    def __init__(self, words: Any):
        self.words = words

    def __call__(self, texts: Any) -> np.ndarray:
        return self.words(texts)

    def save(self) -> None:
        """Nothing to keep."""


class Remembers(nn.Embedding):
    """A tunable encoder that only remembers its users."""

    dim, events = 6, 3

    def forward(self, users_B: Tensor) -> Tensor:
        return super().forward(users_B)


@pytest.fixture
def bench(receipts: Any, protocol: Any, lines: Any, tmp_path: Path) -> Bench:
    opened = protocol(receipts)
    when = datetime(2017, 9, 11, tzinfo=UTC)
    users = [str(user) for user in opened.everyone]
    manifest = SimpleNamespace(kinds={"fused": 1}, checkpoints={}, as_of=when)
    vectors = np.random.default_rng(0).normal(size=(72, 6)).astype(np.float32)
    vectors[:, 0] += 3 * (np.arange(72) % 2)
    subject = SimpleNamespace(
        con=opened.con, manifest=manifest, users=users, lines=Lines(lines),
        vectors=lambda kind: vectors,
        dataset=SimpleNamespace(name="market"), profiles=None, protocol=opened,
    )  # fmt: skip
    settings = Evaluate(
        workspace=str(tmp_path), out=str(tmp_path), suite="one4all", repeats=1, epochs=1, length=8,
        precision="float32", tasks="first purchase in DELI,next basket",
    )  # fmt: skip
    return Bench(subject, Results(tmp_path, ["s1"]), settings)  # type: ignore[arg-type]


def test_tasks_are_measured_once_and_told_beside_the_papers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sections.tasks(bench)
    assert list(found["tasks"]) == ["first purchase in DELI", "next basket"]
    basket = found["tasks"]["next basket"]
    assert set(basket["against"]) == {"P-Trans", "UP-Trans", "T-Trans"}
    assert set(basket["extremes"]) == {"U-MLP", "T-Trans"} and "popularity" in basket
    assert sum(found["score"]["P-Trans"].values()) == 2
    assert sum(found["score"]["T-Trans"].values()) == 1

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(sections.compare, "fit", never)
    assert plain(sections.tasks(bench)) == plain(found)

    page = report.page(plain({**HEAD, **bench.head, **found}))
    for part in (
        "**Synthetic data.**",
        "| next basket (60 users",
        "popularity (reference)",
        "against P-Trans: ",
        "Table 6",
        "paper, other data",
        "cannot both be standard",
    ):
        assert part in page, part
    assert "Fine-tuning" not in page


def test_studies_train_anew_and_judge_by_the_light_model(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def pretrain(root: Path, name: str, tables: Any, as_of: Any, variant: Any, **_: Any) -> Any:
        asked.append(f"{root.name} {variant.name}")
        rng = np.random.default_rng(len(asked))
        users = bench.subject.users[1:]  # one bought nothing in so short a time
        return Pretrained(users, rng.normal(size=(71, 5)).astype(np.float32), Path("none"))

    monkeypatch.setattr(sections.pretraining, "pretrain", pretrain)
    bench.subject.workspace = SimpleNamespace(root=Path("/"), cache=Path("/"))  # type: ignore
    bench.subject.dataset.tables = "tables"  # type: ignore[misc]
    found = {**sections.augmentation(bench), **sections.history(bench)}
    assert asked == [
        "augmentation-MP MP", "augmentation-MP-+-A MP + A", "augmentation-CLS CLS",
        "augmentation-CLS-+-A CLS + A", "augmentation-counts-+-A-(ours) counts + A (ours)",
        *(f"history-{months} counts + A (ours)" for months in (1, 3, 6, 10)),
    ]  # fmt: skip
    assert (bench.results.out / "history.png").exists()
    page = report.page(plain({**HEAD, **bench.head, **found}))
    assert "| CLS + A |" in page and "| months | next basket |" in page


def test_a_tunable_encoder_is_compared_and_timed(bench: Bench) -> None:
    world = bench.world
    assert world.encoder is None and sections.fine_tuning(bench) == {}
    torch.manual_seed(0)
    bench.settings.kind = KIND
    bench.subject.manifest.kinds[KIND] = 1  # type: ignore[index]
    bench.subject.manifest.checkpoints[KIND] = None  # type: ignore[index]
    bench.__dict__["world"] = sections.replace(world, encoder=lambda: Remembers(72, 6))
    bench.settings.tasks = "lapse"
    found = {**sections.fine_tuning(bench), **sections.costs(bench)}
    assert set(found["fine_tuning"]["lapse"]["models"]) == {"fine-tuned", "U-MLP"}
    cost = found["cost"]
    assert cost["fine-tuned"]["bytes_per_user"] < cost["P-Trans"]["bytes_per_user"]  # 3 events, 8
    assert list(found["cost"]) == ["fine-tuned", "P-Trans", "U-MLP"]
    page = report.page(plain({**HEAD, **bench.head, **found}))
    assert "## Fine-tuning the encoder (Table 5)" in page and "| 79.2 M |" in page


def test_maps_show_what_is_known_and_nothing_the_embedding_saw(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, protocol: Any, receipts: Any, lines: Any
) -> None:
    assert sections.maps(bench) == {}
    monkeypatch.setattr(sections.visualise, "plane_method", lambda: "t-SNE")
    ages = [["45-54", "25-34", None][n % 3] for n in range(72)]
    monkeypatch.setattr(Tasks, "known_labels", lambda self, users: {"age": ages})
    found = sections.maps(bench)
    assert found == {"maps": {"users_by_age.png": "t-SNE"}}
    assert (bench.results.out / "users_by_age.png").exists()


def test_without_movielens_its_tasks_are_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections.movielens.importlib.util, "find_spec", lambda name: None)
    assert sections.movies(bench) == {}


def test_the_embedding_is_named_or_the_best_known(bench: Bench) -> None:
    assert bench.kind == "fused"
    bench.settings.kind = "search"
    with pytest.raises(InputError, match=r"kind: expected one of \['fused'\], got 'search'"):
        _ = bench.kind
