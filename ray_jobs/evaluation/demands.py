"""The demands a snapshot is asked: each task's own sentence, and others' words for the same.

The other wordings stand in ``ray_jobs/demands/*.json``. They were written before anything was
measured on them and use no word of the catalogue.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ray_jobs.protocol import Task

DIRECTORY = Path(__file__).parent.parent / "demands"
WORDINGS = ("name", "paraphrase")
"""The sentence of the protocol, which names the category; and the written ones, which do not."""


@dataclass(frozen=True)
class Demand:
    """One task asked in one or several sentences; figures are means over them."""

    wording: str
    asked: tuple[Task, ...]  # the task, once per sentence

    @property
    def task(self) -> Task:
        return self.asked[0]


def demands(tasks: Sequence[Task], written: dict[str, list[str]]) -> list[Demand]:
    """Every task that has a sentence by name, and those that were put into other words too."""
    by_name = [Demand("name", (task,)) for task in tasks if task.sentence is not None]
    paraphrased = [
        Demand("paraphrase", tuple(replace(task, sentence=text) for text in written[task.name]))
        for task in tasks
        if task.sentence is not None and task.name in written
    ]
    return by_name + paraphrased


def read(source: str, directory: Path = DIRECTORY) -> dict[str, list[str]]:
    """Task name → sentences, for the data set ``source``; empty where nobody wrote any."""
    path = directory / f"{source.replace('-', '_')}.json"
    if not path.exists():
        return {}
    content = json.loads(path.read_text())
    return {**content["categories"], **content["behaviours"]}


def digest(written: dict[str, list[str]]) -> str:
    """Hash of the sentences: results depend on them, and they are not code."""
    return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:12]
