"""The sections of the suite FOUND that train models of their own: hours, on all cores.

What they train is in parts that need nothing of each other, so that ``spread`` can measure them at
the same time; a section then finds their results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ray_jobs import presets, visualise
from ray_jobs.evaluation import demands, fusion, planted, probe_table, unseen, zero_shot
from ray_jobs.evaluation.ablations import STEPS, VARIANTS, Trainings, Variant
from ray_jobs.evaluation.bench import Bench
from ray_jobs.evaluation.bootstrap import Resamples
from ray_jobs.evaluation.methods import sentence
from ray_jobs.evaluation.planted import PlantedWorld
from ray_jobs.evaluation.results import Results
from ray_jobs.evaluation.spread import Part
from ray_jobs.evaluation.subject import Subject


def of_unseen(bench: Bench) -> dict[str, Any]:
    """Categories left out of training, at the snapshot's own date."""
    found = {name: part() for name, part in _unseen(bench).items()}
    seeds = [[found[_seeded(fold.name, seed)] for fold in unseen.folds(bench.subject.categories)]
             for seed in range(bench.settings.seeds)]  # fmt: skip
    readings = {
        reading: [unseen.summary([fold[reading] for fold in folds]) for folds in seeds]
        for reading in unseen.READINGS
    }
    return {"unseen": {"preset": bench.settings.preset, "readings": readings}}


def _unseen(bench: Bench) -> dict[str, Part]:
    trainings = bench.trainings("unseen", bench.subject.manifest.as_of)
    folds = list(unseen.folds(bench.subject.categories))
    trainings.prepare(folds)

    def part(fold: Variant, seed: int) -> Part:
        inputs = [asdict(fold.of(bench.preset)), bench.workers, seed]
        return lambda: bench.results.of(
            fold.name, inputs, lambda: unseen.measure(trainings, fold, seed)
        )

    return {_seeded(fold.name, seed): part(fold, seed)
            for seed in range(bench.settings.seeds) for fold in folds}  # fmt: skip


def of_ablations(bench: Bench) -> dict[str, Any]:
    """Every variant trained and measured, at a cut-off where things may be chosen."""
    found = {label: part() for label, part in _ablations(bench).items()}

    def rows(listed: tuple[Variant, ...]) -> dict[str, Any]:
        return {one.name: [found[_seeded(one.name, seed)] for seed in range(num)]
                for one, num in bench.rows(listed)}  # fmt: skip

    about = {"preset": bench.settings.preset, "as_of": bench.chosen_at.isoformat()}
    return {"ablations": {**about, "variants": rows(VARIANTS), "steps": rows(_steps(bench))}}


def _steps(bench: Bench) -> tuple[Variant, ...]:
    """The way from the faithful recipe leads to ``best`` alone."""
    return STEPS if bench.preset == presets.best() else ()


def _ablations(bench: Bench) -> dict[str, Part]:
    trainings = bench.trainings("ablations", bench.chosen_at)
    rows = bench.rows(VARIANTS + _steps(bench))
    trainings.prepare(one for one, _ in rows)

    def part(one: Variant, seed: int) -> Part:
        def work() -> dict[str, Any]:
            made = trainings.subject(one, seed)
            return Results(bench.results.out, made.identity).of(
                f"ablation {made.manifest.id}",
                [demands.digest(bench.written), bench.settings.splits],
                lambda: _brief(made, bench.written, bench.settings.splits),
            )  # fmt: skip

        return work

    seeds = range(max((num for _, num in rows), default=0))
    return {_seeded(one.name, s): part(one, s) for s in seeds for one, num in rows if s < num}


def _seeded(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


def _brief(subject: Subject, written: Mapping[str, demands.Written], splits: int) -> dict[str, Any]:
    """The rows of one variant: zero-shot by the sentence alone, and the probe of its vectors."""
    ours = zero_shot.Method(zero_shot.OURS, sentence(subject), reads=True)
    resamples = Resamples([str(user) for user in subject.protocol.everyone], num=1)
    asked = demands.demands(subject.tasks, written)
    rates = zero_shot.base_rates(subject.earlier)
    measured = {zero_shot.OURS: zero_shot.measure(ours, asked, resamples, rates)}
    tables = {"zero_shot": "name", "paraphrase": "paraphrase"}
    found: dict[str, Any] = {
        part: zero_shot.table(measured, wording).get(zero_shot.OURS, {})
        for part, wording in tables.items()
    }
    row = probe_table.Row(lambda: subject.vectors("fused"))
    found["probe"] = probe_table.measure(row, subject.users, subject.tasks, splits)
    return found


def of_fusion(bench: Bench) -> dict[str, Any]:
    """The fused vector beside its parts, by steps of alignment and by temperature."""
    parts = _fusion(bench)
    listed = [
        {"source": source, "as_of": world.as_of.isoformat(),
         "rows": [{**asdict(row), "name": row.name, "kinds": parts[f"{source}, {row.name}"]()}
                  for row in fusion.rows(world.preset)]}
        for source, world in fusion.worlds(bench).items()
    ]  # fmt: skip
    visualise.fusion_lines(listed, bench.results.out / "fusion.png")
    return {"fusion": {"preset": fusion.faithful(bench.preset).name, "worlds": listed}}


def _fusion(bench: Bench) -> dict[str, Part]:
    splits = bench.settings.splits

    def part(world: Trainings, row: fusion.Row) -> Part:
        def work() -> dict[str, Any]:
            made = world.subject(row.of(world.preset), seed=0)
            return Results(bench.results.out, made.identity).of(
                f"fusion {made.manifest.id}", [splits], lambda: fusion.measure(made, splits)
            )

        return work

    parts: dict[str, Part] = {}
    for source, world in fusion.worlds(bench).items():
        listed = fusion.rows(world.preset)
        world.prepare(row.of(world.preset) for row in listed)
        parts |= {f"{source}, {row.name}": part(world, row) for row in listed}
    return parts


def of_planted(bench: Bench) -> dict[str, Any]:
    """Synthetic worlds whose interests one modality shows."""
    found = {name: part() for name, part in _planted(bench).items()}
    seeds = range(bench.settings.seeds)
    worlds = [[found[_seeded(one.spec, seed)] for seed in seeds]
              for one in planted.worlds(bench.settings.users)]  # fmt: skip
    return {"planted": {"preset": bench.settings.preset, "worlds": worlds}}


def _planted(bench: Bench) -> dict[str, Part]:
    root = bench.results.out / "planted"

    def part(one: PlantedWorld, seed: int) -> Part:
        return lambda: Results(bench.results.out, []).of(
            f"planted {one.spec}", [asdict(bench.preset), seed],
            lambda: planted.measure(one, root, bench.preset, bench.workers, seed=seed),
        )  # fmt: skip

    return {_seeded(one.spec, seed): part(one, seed) for seed in range(bench.settings.seeds)
            for one in planted.worlds(bench.settings.users)}  # fmt: skip


PARTS: dict[str, Callable[[Bench], dict[str, Part]]] = {
    "unseen": _unseen, "ablations": _ablations, "fusion": _fusion, "planted": _planted,
}  # fmt: skip

SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "unseen": of_unseen, "ablations": of_ablations, "fusion": of_fusion, "planted": of_planted,
}  # fmt: skip
