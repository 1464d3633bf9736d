"""How good a snapshot is: the papers' tables on the snapshot's own data, beside strong baselines.

    python -m ray_jobs.evaluate --suite found --workspace DIR --out REPORT
    python -m ray_jobs.evaluate --suite one4all --workspace DIR --out REPORT
    python -m ray_jobs.evaluate … --only zero-shot,probes
    python -m ray_jobs.evaluate … --full            what takes long too: models trained anew, hours

Writes report.md, report.json and figures. The snapshot is judged on what happened from its
``as_of`` on, which its weights have not seen. A killed run goes on where it stopped; a report
shows the sections that were measured. How each figure is made: docs/evaluation.md (FOUND) and
docs/one4all.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from feature_repo import durable
from ray_jobs.command import Job, console, main
from ray_jobs.evaluation import bench, report, sections, spread
from ray_jobs.evaluation.bench import Bench, Found
from ray_jobs.evaluation.results import Results, plain
from ray_jobs.evaluation.subject import Subject
from ray_jobs.one4all import report as one4all_report
from ray_jobs.one4all import sections as one4all
from ray_jobs.one4all import settings as one4all_settings
from ray_jobs.one4all.settings import Bench as One4AllBench
from ray_jobs.one4all.settings import One4All
from ray_jobs.stages import code_version


@dataclass(frozen=True)
class Suite:
    """Sections that share a bench, and the page that shows what they found."""

    settings: type[spread.AtATime]
    bench: Callable[[Subject, Results, Any, int], Any]
    sections: Mapping[str, Callable[[Any], dict[str, Any]]]
    parts: Mapping[str, spread.Parts]
    page: Callable[[dict[str, Any]], str]
    long: tuple[str, ...] = ()  # sections that are measured only if asked for
    check: Callable[[Subject], None] = lambda subject: None  # raises if it cannot be measured


SUITES = {
    "found": Suite(
        Found, Bench, sections.SECTIONS, sections.PARTS, report.page, sections.LONG, bench.check
    ),
    "one4all": Suite(
        One4All,
        One4AllBench,
        one4all.SECTIONS,
        one4all.PARTS,
        one4all_report.page,
        check=one4all_settings.check,
    ),
}


class Evaluate(Job, Found, One4All):
    """Evaluate a snapshot."""

    suite: Literal["found", "one4all"] = "found"
    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for report.md, report.json and figures")
    only: str = Field("", description="sections, by comma; default those that take minutes")
    full: bool = Field(False, description="also what takes long, mostly models of its own: hours")
    workers: int = Field(0, ge=0, description="0 trains in this process, N on N Ray Train workers")

    @field_validator("only")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        there = SUITES[info.data.get("suite", "found")].sections
        for name in filter(None, value.split(",")):
            if name not in there:
                raise ValueError(f"expected some of {', '.join(there)}, got {name!r}")
        return value

    @property
    def sections(self) -> list[str]:
        """Names of the sections to measure, in the order of the report."""
        suite = SUITES[self.suite]
        asked = self.only.split(",") if self.only else [n for n in suite.sections
                                                        if n not in suite.long]  # fmt: skip
        return [n for n in suite.sections if n in asked or (self.full and n in suite.long)]


def run(settings: Evaluate) -> dict[str, Any]:
    """Measure, write the report, return it."""
    suite = SUITES[settings.suite]
    subject = Subject.open(settings.place, settings.snapshot)
    suite.check(subject)
    out = Path(settings.out).resolve()
    manifest = subject.manifest
    # Without the verb's own class: settings travel to other processes, which know no ``__main__``.
    options = suite.settings(**{n: getattr(settings, n) for n in suite.settings.model_fields})
    made = suite.bench(subject, Results(out, subject.identity), options, settings.workers)
    head: dict[str, Any] = {
        "snapshot": manifest.id, "space": manifest.space, "as_of": manifest.as_of.isoformat(),
        "trained_as_of": manifest.trained_as_of.isoformat(), "households": manifest.num_users,
        "source": manifest.source, "synthetic": manifest.synthetic, "code": code_version(),
        "suite": settings.suite, **made.head,
    }  # fmt: skip
    found = {**_measured_before(out, head), **head}
    whole = [name for name in settings.sections if name not in suite.parts]
    in_parts = [name for name in settings.sections if name in suite.parts]
    minutes = [name for name in in_parts if name not in suite.long]
    hours = [name for name in in_parts if name in suite.long]
    for names in (whole, minutes, hours):  # hours last: the report has the others by then
        if any(name in suite.parts for name in names):
            spread.measure(made, suite.parts, names)
        for name in names:
            console.print(f"[bold]{name}[/] …")
            found.update(suite.sections[name](made))
            _write(found, out, suite.page)
    console.print(f"report: {out / 'report.md'}")
    return found


def _measured_before(out: Path, head: dict[str, Any]) -> dict[str, Any]:
    """The report that is there already, if it is about the same snapshot and by the same code."""
    try:
        before: dict[str, Any] = json.loads((out / "report.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return before if all(before.get(name) == value for name, value in head.items()) else {}


def _write(found: dict[str, Any], out: Path, page: Callable[[dict[str, Any]], str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(plain(found), indent=2, allow_nan=False)
    durable.write(out / "report.json", content.encode())
    durable.write(out / "report.md", page(found).encode())


if __name__ == "__main__":
    main(Evaluate, run)
