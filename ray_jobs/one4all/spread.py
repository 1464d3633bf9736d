"""Parts of the suite measured at a time, each on one core of a Ray cluster.

A small Transformer trains hardly faster on two cores than on one, two of them at once do. Every
part leaves its results on disk under the same names as if it were measured alone, so that the
sections find them, and a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import ray
from ray.exceptions import RayTaskError
from ray.util import ActorPool

from feature_repo.settings import Workspace
from ray_jobs.command import console
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.subject import Subject
from ray_jobs.one4all.sections import PARTS
from ray_jobs.one4all.settings import Bench, One4All
from ray_jobs.workers import Workers, cluster


def measure(bench: Bench, sections: Sequence[str]) -> None:
    """Measure the parts of some sections, as many at a time as the settings and Ray allow.

    Raises what a part raised.
    """
    parts = [(s, name) for s in sections if s in PARTS for name in PARTS[s](bench)]
    if bench.settings.parallel == 1 or bench.workers or len(parts) < 2:
        return  # the sections do it themselves
    options = One4All(**{name: getattr(bench.settings, name) for name in One4All.model_fields})
    where = (bench.subject.workspace.root, bench.subject.manifest.id, bench.results.out)
    with cluster(Workers(1)):
        cores = int(ray.cluster_resources()["CPU"])
        num = min(bench.settings.parallel or cores, cores, len(parts))
        console.print(f"{len(parts)} parts, {num} at a time …")
        actors = [_Bench.remote(*where, options) for _ in range(num)]  # type: ignore[attr-defined]
        pool = ActorPool(actors)
        ended = pool.map_unordered(lambda actor, part: actor.measure.remote(*part), parts)
        try:
            for done, (section, name, seconds) in enumerate(ended, 1):
                console.print(f"  {section}, {name}: {seconds:.0f} s ({done} of {len(parts)})")
        except RayTaskError as error:
            raise error.cause from error


@ray.remote(num_cpus=1)
class _Bench:
    """A bench in a process of its own; what its parts share is read once."""

    def __init__(self, workspace: Path, snapshot: str, out: Path, options: One4All):
        subject = Subject.open(Workspace(workspace), snapshot)
        self.bench = Bench(subject, Results(out, subject.identity), options)

    def measure(self, section: str, name: str) -> tuple[str, str, float]:
        """Leave the results of a part on disk; its names and how many seconds it took."""
        started = perf_counter()
        PARTS[section](self.bench)[name]()
        return section, name, perf_counter() - started
