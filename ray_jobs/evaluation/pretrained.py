"""The tabular stage before alignment, which is FOUND's TabTransformer: whose, and its vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from encoders import checkpoint
from encoders.batch import Collate
from encoders.past import cut_history
from feature_repo.manifest import CheckpointEntry
from feature_repo.transforms import micros
from ray_jobs import retrieval
from ray_jobs.evaluation.subject import Subject

NAME = "tabular alone, MLM + RTD (TabTransformer)"
_BATCH = 512


def checkpoints(subject: Subject) -> dict[str, Path]:
    """Name of the row → checkpoint; none if the workspace has it no more.

    It is the one that the snapshot's alignment started from. Older records do not tell; then it is
    every one trained as of the same date, each named by its directory if there are several.
    """
    origins = _origins(subject)
    if origins is None:
        found = _same_date(subject)
        return {NAME: found[0]} if len(found) == 1 else {f"{NAME}, {d.name}": d for d in found}
    own = origins.get("tabular")
    if own is None:
        return {}
    directory = subject.workspace.root / own.path
    there = directory.exists() and checkpoint.fingerprint(directory) == own.sha256
    return {NAME: directory} if there else {}


def _origins(subject: Subject) -> dict[str, CheckpointEntry] | None:
    """Stage → what the snapshot's alignment started from; None where no record tells."""
    root = subject.workspace.root
    aligned = subject.manifest.checkpoints.get("alignment")
    while aligned is not None:
        path = root / "stages" / f"train-{Path(aligned.path).name}.json"
        record = json.loads(path.read_bytes()) if path.exists() else {}
        if record.get("checkpoint") != aligned.path or "started_from" not in record:
            break
        found = {name: CheckpointEntry(**entry) for name, entry in record["started_from"].items()}
        if "alignment" not in found:
            return found
        aligned = found["alignment"]  # a warm start: what was pre-trained lies further back
    return None


def _same_date(subject: Subject) -> list[Path]:
    root, found = subject.workspace.root, []
    for path in sorted((root / "stages").glob("train-tabular-*.json")):
        directory = root / json.loads(path.read_bytes())["checkpoint"]
        if directory.exists():
            info = checkpoint.read_info(directory)
            if info.trained_as_of == subject.manifest.trained_as_of.isoformat():
                found.append(directory)
    return found


@torch.inference_mode()
def vectors(subject: Subject, directory: Path) -> np.ndarray:
    """Vectors of a tabular checkpoint at the snapshot's date, float32 [N, dim]."""
    model, _ = checkpoint.load(directory, expect="tabular")
    when, users = subject.manifest.as_of, subject.users
    tables = retrieval.weekly_rows(subject.workspace, users, [when])
    history = cut_history(tables, subject.lines)
    collate = Collate(history, windows=1, table=model.config.columns)
    at = history.rows(users, [micros(when)] * len(users))
    pieces = [model(collate(at[n : n + _BATCH])) for n in range(0, len(at), _BATCH)]
    return torch.cat(pieces).numpy()
