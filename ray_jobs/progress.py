"""Progress of a training run, read from the lines that worker 0 appends to a file.

One way for all: the file is the same whether the loop runs in this process or on a cluster.
"""

from __future__ import annotations

import json
import logging
import threading
import warnings
from pathlib import Path
from typing import Any

import transformers.utils.logging as transformers_logging
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ray_jobs.command import console

_POLL_SECONDS = 0.3


def quiet() -> None:
    """Leave the terminal to our own progress: no loading bars, no per-report log lines."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")


def report(path: Path, step: int, metrics: dict[str, float]) -> None:
    """Append one line; called by worker 0."""
    with path.open("a") as file:
        file.write(json.dumps({"step": step, **metrics}) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All complete lines so far."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def follow(path: Path, name: str, steps: int, ended: threading.Event) -> None:
    """Show the run until ``ended``: a bar on a terminal, a line per report in a log."""
    seen = len(read(path))
    if not console.is_terminal:
        while True:
            last = ended.wait(_POLL_SECONDS)
            lines = read(path)
            for line in lines[seen:]:
                console.print(f"  {name} {line['step']}/{steps}  {_losses(line)}")
            seen = len(lines)
            if last:
                return
    columns = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/"
               "{task.total:.0f}  {task.fields[losses]}"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=steps, losses="starting")
        while True:
            last = ended.wait(_POLL_SECONDS)
            lines = read(path)
            if len(lines) > seen:
                bar.update(task, completed=lines[-1]["step"], losses=_losses(lines[-1]))
            if last:
                return


def _losses(line: dict[str, Any]) -> str:
    return "  ".join(f"{k} {v:.3f}" for k, v in line.items() if k != "step")
