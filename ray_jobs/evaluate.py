"""How good a snapshot is: the papers' tables on the snapshot's own data, beside strong baselines.

    python -m ray_jobs.evaluate --suite found --workspace DIR --out REPORT
    python -m ray_jobs.evaluate --suite one4all --workspace DIR --out REPORT
    python -m ray_jobs.evaluate … --only zero-shot,probes
    python -m ray_jobs.evaluate … --full            what trains models of its own too: hours

Writes report.md, report.json and figures. The snapshot is judged on what happened from its
``as_of`` on, which its weights have not seen. A killed run goes on where it stopped; a report
shows the sections that were measured. How each figure is made: docs/evaluation.md (FOUND) and
docs/one4all.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from feature_repo import durable
from feature_repo.snapshots import SnapshotStore
from ray_jobs import presets, visualise
from ray_jobs.command import Job, console, main
from ray_jobs.evaluation import (
    ablations,
    cost,
    demands,
    lookalikes,
    outcomes,
    planted,
    probe_table,
    reliability,
    report,
    unseen,
    zero_shot,
)
from ray_jobs.evaluation.bootstrap import Resamples
from ray_jobs.evaluation.methods import methods, sentence
from ray_jobs.evaluation.results import Results, plain
from ray_jobs.evaluation.subject import EARLIER, Subject
from ray_jobs.one4all import report as one4all_report
from ray_jobs.one4all import sections as one4all
from ray_jobs.one4all import spread
from ray_jobs.one4all.settings import Bench, One4All
from ray_jobs.protocol import FINAL_CUTOFF
from ray_jobs.stages import code_version


class Evaluate(Job, One4All):
    """Evaluate a snapshot."""

    suite: Literal["found", "one4all"] = "found"
    snapshot: str | None = Field(None, description="id; default the live one")
    out: str = Field(description="directory for report.md, report.json and figures")
    only: str = Field("", description="sections, by comma; default those that train nothing")
    full: bool = Field(False, description="also unseen, ablations and planted, which train")
    splits: int = Field(5, ge=1, description="splits of each linear probe")
    peers: str | None = Field(None, description="directory of other systems' vectors as Parquet")
    preset: str = Field("best", description="of ablations and planted worlds")
    seeds: int = Field(1, ge=1, description="training seeds of each ablation")
    users: int = Field(planted.USERS, ge=100, description="of each planted world")
    workers: int = Field(0, ge=0, description="0 trains in this process, N on N Ray Train workers")

    @field_validator("only")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        there = one4all.SECTIONS if info.data.get("suite") == "one4all" else SECTIONS
        for name in filter(None, value.split(",")):
            if name not in there:
                raise ValueError(f"expected some of {', '.join(there)}, got {name!r}")
        return value

    @property
    def sections(self) -> list[str]:
        """Names of the sections to measure, in the order of the report."""
        if self.suite == "one4all":
            asked = self.only.split(",") if self.only else list(one4all.SECTIONS)
            return [name for name in one4all.SECTIONS if name in asked]
        chosen = self.only.split(",") if self.only else [n for n in SECTIONS if n not in _TRAINING]
        return [n for n in SECTIONS if n in chosen or (self.full and n in _TRAINING)]


def run(settings: Evaluate) -> dict[str, Any]:
    """Measure, write the report, return it."""
    subject = Subject.open(settings.place, settings.snapshot)
    out = Path(settings.out).resolve()
    results = Results(out, subject.identity)
    manifest = subject.manifest
    head: dict[str, Any] = {
        "snapshot": manifest.id, "space": manifest.space, "as_of": manifest.as_of.isoformat(),
        "trained_as_of": manifest.trained_as_of.isoformat(), "households": manifest.num_users,
        "source": manifest.source, "synthetic": manifest.synthetic, "code": code_version(),
        "suite": settings.suite,
    }  # fmt: skip
    bench = Bench(subject, results, settings, settings.workers)
    if settings.suite == "one4all":
        head |= bench.head
    found = {**_measured_before(out, head), **head}
    if settings.suite == "one4all":
        spread.measure(bench, settings.sections)
    for name in settings.sections:
        console.print(f"[bold]{name}[/] …")
        if settings.suite == "one4all":
            found.update(one4all.SECTIONS[name](bench))
        else:
            found.update(SECTIONS[name](subject, results, settings))
        _write(found, out)
    console.print(f"report: {out / 'report.md'}")
    return found


def _measured_before(out: Path, head: dict[str, Any]) -> dict[str, Any]:
    """The report that is there already, if it is about the same snapshot and by the same code."""
    try:
        before: dict[str, Any] = json.loads((out / "report.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return before if all(before.get(name) == value for name, value in head.items()) else {}


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


def _probes(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Every embedding under the same probe."""
    peers = Path(settings.peers).resolve() if settings.peers else None
    found = {}
    for name, row in probe_table.rows(subject, peers).items():
        inputs = [settings.splits, row.depends]

        def work(row: probe_table.Row = row) -> dict[str, Any]:
            return probe_table.measure(row, subject.users, subject.tasks, settings.splits)

        found[name] = results.of(f"probe {name}", inputs, work)
    return {"probes": found}


def _map(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Figure 4: the fused vectors on a plane, coloured by what became of the users."""
    name = "outcomes.png"

    def work() -> list[str]:
        labels = outcomes.outcome_labels(subject.tasks, subject.users)
        visualise.embedding_map(
            subject.vectors("fused"), labels, results.out / name, grey=outcomes.NONE,
            title="Fused vectors, coloured by what the households did next",
        )  # fmt: skip
        return [name]

    made = results.of("map", [], work)
    if not (results.out / name).exists():
        made = work()
    return {"figures": made}


def _cost(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Parameters, seconds, bytes."""
    return {"cost": results.of("cost", [], lambda: cost.measure(subject))}


def _reliability(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Probabilities against what happened; nothing where no earlier snapshot taught any."""
    store = SnapshotStore(subject.workspace)
    inputs = [manifest.id for manifest in store.list()]
    return {"reliability": results.of("reliability", inputs, lambda: reliability.measure(subject))}


def _lookalikes(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Seed users beside the sentence, by how many they are."""
    return {"lookalikes": results.of("lookalikes", [], lambda: lookalikes.measure(subject))}


def _ablations(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Every variant trained and measured, at a cut-off where things may be chosen."""
    preset = presets.preset(settings.preset)
    latest = (FINAL_CUTOFF - EARLIER).replace(tzinfo=UTC)
    bench = _bench(subject, results, settings, min(subject.manifest.as_of, latest))
    written = demands.read(subject.dataset.source)
    variants = ablations.applicable(ablations.VARIANTS, preset, set(subject.manifest.kinds))

    def measure(variant: Subject) -> dict[str, Any]:
        return Results(results.out, variant.identity).of(
            f"ablation {variant.manifest.id}", [demands.digest(written), settings.splits],
            lambda: _brief(variant, written, settings.splits),
        )  # fmt: skip

    found = ablations.run(bench, variants, settings.seeds, measure)
    about = {"preset": settings.preset, "as_of": bench.as_of.isoformat()}
    return {"ablations": {**about, "variants": found}}


def _unseen(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Categories left out of training, at the snapshot's own date."""
    bench = _bench(subject, results, settings, subject.manifest.as_of)
    folds = []
    for fold in unseen.folds():
        inputs = [asdict(fold.of(bench.preset)), settings.workers]

        def work(fold: ablations.Variant = fold) -> dict[str, Any]:
            return unseen.measure(bench, fold, seed=0)

        folds.append(results.of(fold.name, inputs, work))
    return {"unseen": {"preset": settings.preset, "groups": unseen.summary(folds)}}


def _bench(
    subject: Subject, results: Results, settings: Evaluate, as_of: datetime
) -> ablations.Bench:
    """Where models of this report's own are trained."""
    return ablations.Bench(
        ablations.place(results.out), subject.dataset.source, subject.dataset.demographics,
        as_of, presets.preset(settings.preset), settings.workers,
    )  # fmt: skip


def _brief(subject: Subject, written: dict[str, list[str]], splits: int) -> dict[str, Any]:
    """The rows of one variant: zero-shot by the sentence alone, and the probe of its vectors."""
    ours = zero_shot.Method(zero_shot.OURS, sentence(subject), reads=True)
    resamples = Resamples([str(user) for user in subject.protocol.everyone], num=1)
    asked = demands.demands(subject.tasks, written)
    measured = {zero_shot.OURS: zero_shot.measure(ours, asked, resamples, {})}
    tables = {"zero_shot": "name", "paraphrase": "paraphrase"}
    found: dict[str, Any] = {
        part: zero_shot.table(measured, wording).get(zero_shot.OURS, {})
        for part, wording in tables.items()
    }
    row = probe_table.Row(lambda: subject.vectors("fused"))
    found["probe"] = probe_table.measure(row, subject.users, subject.tasks, splits)
    return found


def _planted(subject: Subject, results: Results, settings: Evaluate) -> dict[str, Any]:
    """Synthetic worlds whose interests one modality shows."""
    preset = presets.preset(settings.preset)
    root = results.out / "planted"
    found = []
    for one in planted.worlds(settings.users):

        def work(one: planted.PlantedWorld = one) -> dict[str, Any]:
            return planted.measure(one, root, preset, settings.workers)

        found.append(Results(results.out, []).of(f"planted {one.spec}", [asdict(preset)], work))
    return {"planted": found}


def _write(found: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    content = json.dumps(plain(found), indent=2, allow_nan=False)
    durable.write(out / "report.json", content.encode())
    page = one4all_report.page if found["suite"] == "one4all" else report.page
    durable.write(out / "report.md", page(found).encode())


Section = Callable[[Subject, Results, Evaluate], dict[str, Any]]
SECTIONS: dict[str, Section] = {
    "zero-shot": _zero_shot, "probes": _probes, "map": _map, "cost": _cost,
    "reliability": _reliability, "lookalikes": _lookalikes,
    "unseen": _unseen, "ablations": _ablations, "planted": _planted,
}  # fmt: skip
_TRAINING = ("unseen", "ablations", "planted")  # sections that train models of their own


if __name__ == "__main__":
    main(Evaluate, run)
