"""Parts of a suite measured at a time, each on one core of a Ray cluster.

A small model trains hardly faster on two cores than on one, two of them at once do. Every part
leaves its results on disk under the same names as if it were measured alone, so that the sections
find them, and a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import ray
from pydantic import BaseModel, Field
from ray.exceptions import RayTaskError
from ray.util import ActorPool

from feature_repo.settings import Workspace
from ray_jobs.command import console
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.subject import Subject
from ray_jobs.workers import Workers, cluster


class AtATime(BaseModel):
    """How many parts are measured at a time."""

    parallel: int = Field(
        0, ge=0, description="parts that train models measured at a time, each on one core of Ray; "
        "0: all cores. With --workers, one after another",
    )  # fmt: skip


class Bench(Protocol):
    """What the sections of a suite read; built from a subject, its results and settings."""

    @property
    def subject(self) -> Subject: ...
    @property
    def results(self) -> Results: ...
    @property
    def settings(self) -> AtATime: ...
    @property
    def workers(self) -> int: ...


Part = Callable[[], dict[str, Any]]
Parts = Callable[[Any], Mapping[str, Part]]
"""From a bench: name → what measures that part."""


def measure(bench: Bench, parts: Mapping[str, Parts], sections: Sequence[str]) -> None:
    """Measure the parts of some sections, as many at a time as the settings and Ray allow.

    Args:
        parts: section → its parts; sections without any are left to themselves.

    Raises what a part raised.
    """
    if bench.settings.parallel == 1 or bench.workers:
        return  # the sections do it themselves
    named = [(s, name) for s in sections if s in parts for name in parts[s](bench)]
    if len(named) < 2:
        return
    root, snapshot = bench.subject.workspace.root, bench.subject.manifest.id
    given = (type(bench), dict(parts), root, snapshot, bench.results.out, bench.settings)
    with cluster(Workers(1)):
        cores = int(ray.cluster_resources()["CPU"])
        num = min(bench.settings.parallel or cores, cores, len(named))
        console.print(f"{len(named)} parts, {num} at a time …")
        actors = [_Measurer.remote(*given) for _ in range(num)]  # type: ignore[attr-defined]
        ended = ActorPool(actors).map_unordered(lambda one, part: one.measure.remote(*part), named)
        try:
            for done, (section, name, seconds) in enumerate(ended, 1):
                console.print(f"  {section}, {name}: {seconds:.0f} s ({done} of {len(named)})")
        except RayTaskError as error:
            raise error.cause from error


@ray.remote(num_cpus=1)
class _Measurer:
    """A bench in a process of its own; what its parts share is read once."""

    def __init__(
        self, kind: Callable[..., Any], parts: Mapping[str, Parts], workspace: Path, snapshot: str,
        out: Path, settings: AtATime,
    ):  # fmt: skip
        subject = Subject.open(Workspace(workspace), snapshot)
        bench = kind(subject, Results(out, subject.identity), settings)
        self._parts_of = cache(lambda section: parts[section](bench))

    def measure(self, section: str, name: str) -> tuple[str, str, float]:
        """Leave the results of a part on disk; its names and how many seconds it took."""
        started = perf_counter()
        self._parts_of(section)[name]()
        return section, name, perf_counter() - started
