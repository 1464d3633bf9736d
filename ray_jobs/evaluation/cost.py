"""What a snapshot costs: parameters, seconds and throughput per stage, bytes per user.

Seconds are read from the records that the stages left in the workspace; the start of workers is in
none of them. A training stage's throughput is that of its steps: reading the samples and what is
fitted after the last step take no more time with more steps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from encoders import checkpoint
from ray_jobs.evaluation.subject import Subject

_WORK = {"features": "rows", "samples": "rows", "embed": "num_users"}
"""Stage → what its record counts; training stages count samples."""


def measure(subject: Subject) -> dict[str, Any]:
    """``parameters`` per part, ``stages`` with seconds and throughput, ``bytes_per_user``."""
    return {
        "parameters": parameters(subject),
        "stages": stage_times(subject.workspace.root / "stages"),
        "bytes_per_user": bytes_per_user(subject),
    }


def parameters(subject: Subject) -> dict[str, dict[str, int]]:
    """Part of the model → how many parameters it has, and how many alignment trains."""
    directory = subject.workspace.root / subject.manifest.checkpoints["alignment"].path
    model, _ = checkpoint.load(directory, expect="alignment")
    counts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        part = counts.setdefault(name.split(".")[0], {"all": 0, "trained": 0})
        part["all"] += parameter.numel()
        part["trained"] += parameter.numel() * parameter.requires_grad
    return counts


def stage_times(directory: Path) -> dict[str, dict[str, Any]]:
    """Stage → seconds, those of training steps, work and work per second, of its latest run.

    Seconds are None where an older record has only those of several stages together.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(directory.glob("*.json"), key=lambda each: each.stat().st_mtime):
        stage, record = path.stem.rsplit("-", 1)[0], json.loads(path.read_bytes())
        amount = record.get(_WORK.get(stage, "samples_seen"))
        seconds = None if len(record.get("together", [])) > 1 else record["seconds"]
        stepping = record.get("step_seconds")
        timed = seconds if stepping is None else stepping
        found[stage] = {
            "seconds": seconds,
            "step_seconds": stepping,
            "amount": amount,
            "per_second": amount / timed if amount and timed else None,
        }
    return found


def bytes_per_user(subject: Subject) -> dict[str, float]:
    """Kind of embedding → bytes of matrix and history of one user."""
    root, users = subject.workspace.root, max(subject.manifest.num_users, 1)
    return {
        kind: ((root / entry.matrix).stat().st_size
               + sum((root / part).stat().st_size for part in entry.parts)) / users
        for kind, entry in subject.manifest.kinds.items()
    }  # fmt: skip
