"""Every category is left out once, and only categories that were left out are scored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

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


def test_words_alone_leave_out_what_the_past_of_a_subject_says() -> None:
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
    assert methods.words_alone(made)(task).tolist() == [1.0, 0.5, 0.0]
    made.tasks = [task, Task("D", "CHEESE", "…", task.users, task.labels)]
    of = {score: unseen.scored(made, score(made), ("CHEESE",))
          for score in (methods.sentence, methods.words_alone)}  # fmt: skip
    assert of[methods.sentence]["A"]["CHEESE"]["auc"] == 0.0
    assert of[methods.words_alone] == {"A": {"CHEESE": {"auc": 1.0, "precision_at_k": 1.0}}}
    assert unseen.scored(made, methods.sentence(made), ("COFFEE",)) == {}
