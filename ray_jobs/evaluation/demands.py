"""The demands a snapshot is asked: each task's own sentence, and others' words for the same.

The other wordings stand in ``ray_jobs/demands/*.json``, written before anything was measured on
them. Paraphrases use no word of the category's name, but some name one of its products ("shampoo"),
which the catalogue lists; those under ``without_products`` use no word of any level below either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ray_jobs.demand_file import own_file, read_demands
from ray_jobs.protocol import Task

WORDINGS = ("name", "paraphrase")
"""The sentence of the protocol, which names the category; and the written ones, which do not."""
STRICT = "without product words"
"""The wording without a word of the category's products, for categories alone."""

Written = Mapping[str, Sequence[str]]
"""Task name → sentences."""


@dataclass(frozen=True)
class Demand:
    """One task asked in one or several sentences; figures are means over them."""

    wording: str
    asked: tuple[Task, ...]  # the task, once per sentence

    @property
    def task(self) -> Task:
        return self.asked[0]


def demands(tasks: Sequence[Task], written: Mapping[str, Written]) -> list[Demand]:
    """Every task that has a sentence by name, and in each wording of ``written`` that tells it."""
    asked = [task for task in tasks if task.sentence is not None]
    return [Demand("name", (task,)) for task in asked] + [
        Demand(wording, tuple(replace(task, sentence=text) for text in sentences[task.name]))
        for wording, sentences in written.items()
        for task in asked
        if task.name in sentences
    ]


def read(source: str) -> dict[str, dict[str, list[str]]]:
    """Wording → task name → sentences, for the data set ``source``; none where nobody wrote any."""
    if not own_file(source).is_file():
        return {"paraphrase": {}, STRICT: {}}
    content = read_demands(source)
    paraphrases = {**content["categories"], **content["behaviours"]}
    return {"paraphrase": paraphrases, STRICT: content["without_products"]}


def digest(written: Mapping[str, Written]) -> str:
    """Hash of the sentences: results depend on them, and they are not code."""
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:12]
