"""Progress of a training run, read from the lines that worker 0 appends to a file.

One way for all: the file is the same whether the loop runs in this process or on a cluster.
"""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ray_jobs.command import console

_POLL_SECONDS = 0.3


def quiet() -> None:
    """Leave the terminal to our own progress: no log line per report, no deprecations."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")


def report(path: Path, stage: str, step: int, steps: int, losses: dict[str, float]) -> None:
    """Append one line; called by worker 0."""
    line = {"stage": stage, "step": step, "steps": steps, "losses": losses}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All complete lines so far."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def follow(path: Path, ended: threading.Event) -> None:
    """Show the run until ``ended``: a bar per stage on a terminal, a line per report in a log."""
    if not console.is_terminal:
        for line in _lines(path, ended):
            text = f"  {line['stage']} {line['step']}/{line['steps']}  {_text(line['losses'])}"
            console.print(text)
        return
    columns = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/"
               "{task.total:.0f}  {task.fields[losses]}"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bars:
        waiting = bars.add_task("starting workers", total=None, losses="")
        tasks: dict[str, TaskID] = {}
        for line in _lines(path, ended):
            bars.update(waiting, visible=False)
            stage = line["stage"]
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=line["steps"], losses="")
            bars.update(tasks[stage], completed=line["step"], losses=_text(line["losses"]))


def _lines(path: Path, ended: threading.Event) -> Iterator[dict[str, Any]]:
    """The lines of the file as they appear, until ``ended``."""
    seen = 0
    while True:
        last = ended.wait(_POLL_SECONDS)
        lines = read(path)
        yield from lines[seen:]
        seen = len(lines)
        if last:
            return


def _text(losses: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
