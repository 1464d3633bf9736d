"""How good a snapshot is: FOUND's tables on the snapshot's own data, beside strong baselines.

    python -m ray_jobs.evaluate --suite found --workspace DIR --out REPORT
    python -m ray_jobs.evaluate … --only zero-shot,probes

Writes report.md, report.json and figures. The snapshot is judged on what happened from its
``as_of`` on, which its weights have not seen. A killed run goes on where it stopped; a report
shows the sections that were measured. How each figure is made: docs/evaluation.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from feature_repo import durable
from ray_jobs import visualise
from ray_jobs.command import Job, console, main
from ray_jobs.evaluation import demands, report, zero_shot
from ray_jobs.evaluation.bootstrap import Resamples
from ray_jobs.evaluation.methods import methods
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.subject import Subject


class Evaluate(Job):
    """Evaluate a snapshot."""

    suite: Literal["found"] = "found"
    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for report.md, report.json and figures")
    only: str = Field("", description="sections, by comma; default all")
    splits: int = Field(5, ge=1, description="splits of each linear probe")

    @field_validator("only")
    @classmethod
    def _known(cls, value: str) -> str:
        for name in filter(None, value.split(",")):
            if name not in SECTIONS:
                raise ValueError(f"expected some of {', '.join(SECTIONS)}, got {name!r}")
        return value

    @property
    def sections(self) -> list[str]:
        """Names of the sections to measure."""
        return [name for name in SECTIONS if not self.only or name in self.only.split(",")]


def run(settings: Evaluate) -> dict[str, Any]:
    """Measure, write the report, return it."""
    subject = Subject.open(settings.place, settings.snapshot)
    out = Path(settings.out).resolve()
    results = Results(out, subject.identity)
    manifest = subject.manifest
    found: dict[str, Any] = {
        "snapshot": manifest.id, "space": manifest.space, "as_of": manifest.as_of.isoformat(),
        "trained_as_of": manifest.trained_as_of.isoformat(), "households": manifest.num_users,
        "source": manifest.source, "synthetic": manifest.synthetic,
    }  # fmt: skip
    for name in settings.sections:
        console.print(f"[bold]{name}[/] …")
        found.update(SECTIONS[name](subject, results, settings))
        _write(found, out)
    console.print(f"report: {out / 'report.md'}")
    return found


def _zero_shot(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Every method on every demand, and the figure."""
    written = demands.read(subject.dataset.source)
    asked = demands.digest(written)
    rates = results.of("base rates", [], lambda: zero_shot.base_rates(subject.earlier))
    measured = {}
    listed = methods(subject)
    for name, method in listed.items():

        def work(method: zero_shot.Method = method) -> dict[str, Any]:
            resamples = Resamples([str(user) for user in subject.protocol.everyone])
            asked = demands.demands(subject.tasks, written)
            return zero_shot.measure(method, asked, resamples, rates)

        measured[name] = results.of(f"zero-shot {name}", [asked], work)
    counts = [name for name, method in listed.items() if method.is_count]
    tables = {"zero_shot": "name", "paraphrase": "paraphrase"}
    found: dict[str, Any] = {
        section: zero_shot.table(measured, wording) for section, wording in tables.items()
    }
    found["against_counts"] = {
        section: zero_shot.against_counts(measured, counts, wording)
        for section, wording in tables.items()
    }
    visualise.zero_shot_bars(found["zero_shot"], results.out / "zero_shot.png")
    return found


def _write(found: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(found, indent=2, allow_nan=False)
    durable.write(out / "report.json", content.encode())
    durable.write(out / "report.md", report.page(found).encode())


Section = Callable[[Subject, Results, Evaluate], dict[str, Any]]
SECTIONS: dict[str, Section] = {"zero-shot": _zero_shot}


if __name__ == "__main__":
    main(Evaluate, run)
