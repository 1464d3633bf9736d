"""Results of an evaluation on disk, so that a killed run goes on where it stopped.

``OUT/results/<name>-<key>.json`` is written last, whole, and named by the hash of everything the
result depends on: snapshot, settings, and the code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from feature_repo import durable
from ray_jobs.command import console
from ray_jobs.stages import code_version, key_of


class NotMeasured(Exception):
    """The data hold too little for this figure; a report leaves it out and says so."""


@dataclass(frozen=True)
class Results:
    """The results below one directory that belong to one subject."""

    out: Path
    identity: list[Any]

    def of(self, name: str, inputs: Any, work: Callable[[], Any]) -> Any:
        """``work()`` as plain JSON values, unless a result with the same inputs is there.

        Args:
            name: of the result, e.g. ``"probe fused"``.
            inputs: what it depends on besides the subject and the code, JSON-able.
        """
        path = self._path(name, inputs)
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            started = perf_counter()
            found = plain(work())
            durable.write(path, json.dumps(found, allow_nan=False).encode())
            console.print(f"  {name}: {perf_counter() - started:.0f} s")
        return found

    def _path(self, name: str, inputs: Any) -> Path:
        key = key_of(name, self.identity, inputs, code_version())
        path = self.out / "results" / f"{name.replace(' ', '-').replace('/', '-')}-{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def plain(value: Any) -> Any:
    """JSON has no NaN: what has no value becomes null; arrays become lists."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and np.isnan(value) else value
