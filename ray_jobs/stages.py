"""Finished stages are reused: a stage is named by the hash of all that goes into it.

A stage's record, ``WORKSPACE/stages/<name>-<key>.json``, is written last. A run that was killed
has no record for the stage it died in and does that one again; stages before it are found done.
The code itself goes into the key, so a changed program never reuses an old result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

from feature_repo import durable
from feature_repo.settings import Workspace
from ray_jobs.command import console

_ROOT = Path(__file__).parent.parent
_CODE = ("feature_repo", "encoders", "ray_jobs")


@cache
def code_version() -> str:
    """Hash of the source that stages run."""
    digest = hashlib.sha256()
    for package in _CODE:
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def key_of(*parts: Any) -> str:
    """Short stable hash of JSON-able values."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_stage(
    workspace: Workspace, name: str, inputs: Any, work: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    """Do ``work(key)`` unless a finished one with the same inputs is there; return its record.

    Args:
        inputs: everything the result depends on, JSON-able; the code version is added.
        work: gets the stage's key, returns its record. Names under ``"outputs"`` are paths
            relative to the workspace that must still exist for the record to count.
    """
    key, done = lookup(workspace, name, inputs)
    if done is not None:
        return done
    started = perf_counter()
    console.print(f"[bold]{name}[/] …")
    return record(workspace, name, key, work(key), perf_counter() - started)


def lookup(workspace: Workspace, name: str, inputs: Any) -> tuple[str, dict[str, Any] | None]:
    """The stage's key, and its record if a finished one with the same inputs is there."""
    key = key_of(name, inputs, code_version())
    done = finished(workspace, _path(workspace, name, key))
    if done is not None:
        console.print(f"[dim]{name}: reused ({key})[/]")
    return key, done


def record(
    workspace: Workspace, name: str, key: str, result: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Write the record of a stage that just finished."""
    full = {**result, "key": key, "seconds": round(seconds, 1)}
    text = json.dumps(full, indent=2, default=str)
    durable.write(_path(workspace, name, key), text.encode())
    console.print(f"[bold]{name}[/] done in {seconds:.1f} s")
    return full


def _path(workspace: Workspace, name: str, key: str) -> Path:
    return workspace.root / "stages" / f"{name}-{key}.json"


def finished(workspace: Workspace, path: Path) -> dict[str, Any] | None:
    """The record at ``path``, if it is there, readable, and its outputs still exist."""
    try:
        record: dict[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    outputs = record.get("outputs", [])
    return record if all((workspace.root / each).exists() for each in outputs) else None
