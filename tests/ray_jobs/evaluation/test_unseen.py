"""Every category is left out once, and only categories that were left out are scored."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from encoders import checkpoint
from encoders.catalogue import Catalogue, Subject
from ray_jobs import presets
from ray_jobs.evaluation import methods, unseen
from ray_jobs.evaluation.ablations import Variant
from ray_jobs.facts import selected
from ray_jobs.protocol import CATEGORIES, Task


def test_each_category_is_left_out_once_five_at_a_time() -> None:
    held = [fold.of(presets.best()).unseen for fold in unseen.folds()]
    assert all(len(each) == unseen.HELD_OUT for each in held)
    assert sorted(name for each in held for name in each) == sorted(CATEGORIES)


def test_no_sentence_is_about_a_subject_that_is_left_out() -> None:
    subjects = ["BEER", "BEER", "WINE", "GROCERY", "LAGER"]
    facts = pa.table({
        "user_id": list("abacb"), "cutoff": [0] * 5, "kind": ["purchase"] * 5,
        "subject": subjects, "level": [2, 2, 2, 1, 3],
    })  # fmt: skip
    preset = Variant("held out", {"unseen": ("WINE",)}).of(presets.best())
    assert set(selected(facts, preset)["subject"].to_pylist()) == {"BEER", "GROCERY"}


def test_the_summary_is_over_all_folds() -> None:
    figures = [{"auc": auc, "precision_at_k": auc / 2} for auc in (0.9, 0.7, 0.5)]
    first = {"A": {"CHEESE": figures[0], "COFFEE": figures[1]}, "B": {"COFFEE": figures[2]}}
    second = {"A": {"YOGURT": figures[2]}}
    found = unseen.summary([first, second])
    assert found["A"]["tasks"] == 3 and found["A"]["auc"] == pytest.approx(0.7)
    assert found["A"]["precision_at_k"] == pytest.approx(0.35)
    assert found["B"] == {
        "tasks": 1, "auc": 0.5, "precision_at_k": 0.25, "categories": {"COFFEE": 0.5},
    }  # fmt: skip


def test_without_feedback_a_query_leaves_out_the_past_of_a_subject() -> None:
    """The sentence's past ranks the third user first, its words the first."""

    class Model:
        feedback: Any = "fitted"

    class Encoder:
        def __init__(self) -> None:
            self.model = Model()

        def understand(self, text: str) -> SimpleNamespace:
            past = np.array([0.0, 2.0]) if self.model.feedback else np.zeros(2)
            return SimpleNamespace(vector=np.array([1.0, 0.0]) + past)

    users = ["a", "b", "c"]
    vectors = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    made: Any = SimpleNamespace(
        users=users, query_encoder=lambda *_: Encoder(), vectors=lambda kind: vectors
    )
    task = Task("A", "CHEESE", "will buy cheese", np.array(users), np.array([True, False, False]))
    assert methods.sentence(made)(task).tolist() == [1.0, 1.5, 2.0]
    assert methods.without_feedback(made)(task).tolist() == [1.0, 0.5, 0.0]
    made.tasks = [task, Task("D", "CHEESE", "…", task.users, task.labels)]
    of = {score: unseen.scored(made, score(made), ("CHEESE",))
          for score in (methods.sentence, methods.without_feedback)}  # fmt: skip
    assert of[methods.sentence]["A"]["CHEESE"]["auc"] == 0.0
    assert of[methods.without_feedback] == {"A": {"CHEESE": {"auc": 1.0, "precision_at_k": 1.0}}}
    assert unseen.scored(made, methods.sentence(made), ("COFFEE",)) == {}


def test_a_category_that_nobody_knows_is_read_as_those_that_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without its own heading, cream cheese is read as milk and cream, not as a car wash."""
    names = ("CREAM CHEESE", "MILK AND CREAM", "CAR WASH")
    catalogue = Catalogue.of(Subject("purchase", name, 2, "SHOP", 9) for name in names)
    words = ["cream", "cheese", "milk", "car", "wash"]

    class Lines:
        def __call__(self, texts: list[str]) -> np.ndarray:
            bags = np.array([[word in text.lower() for word in words] for text in texts], float)
            return bags / np.maximum(np.linalg.norm(bags, axis=1, keepdims=True), 1e-9)

        once = __call__

    class Model:
        dim = 2

        def encode_text(self, texts: list[str]) -> torch.Tensor:
            known = {"milk": [1.0, 0.0], "car": [0.0, 1.0]}
            return torch.tensor([next((v for k, v in known.items() if k in t), [0.0, 9.0])
                                 for t in texts])  # fmt: skip

    def query_encoder(*_: Any) -> SimpleNamespace:
        return SimpleNamespace(model=Model(), info=SimpleNamespace(horizon_days=28))

    users = ["dairy", "driver"]
    made: Any = SimpleNamespace(
        users=users, vectors=lambda kind: np.eye(2), lines=Lines(), query_encoder=query_encoder,
        workspace=SimpleNamespace(root=Path()),
        manifest=SimpleNamespace(checkpoints={"alignment": SimpleNamespace(path="c")}),
    )  # fmt: skip
    monkeypatch.setattr(checkpoint, "read_catalogue", lambda directory: catalogue)
    task = Task("A", names[0], "will buy cream cheese in the next four weeks", np.array(users),
                np.array([True, False]))  # fmt: skip
    assert methods.as_others(made, ())(task).argmax() == 1, "known: its own sentence, as it is"
    assert methods.as_others(made, names[:1])(task).argmax() == 0
