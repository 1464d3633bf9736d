"""The sections of the suite FOUND: each a function from a bench to plain values for the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feature_repo.snapshots import SnapshotStore
from ray_jobs import visualise
from ray_jobs.evaluation import (
    cost,
    demands,
    few_shot_sections,
    lookalikes,
    outcomes,
    probe_table,
    reliability,
    trained,
    zero_shot,
)
from ray_jobs.evaluation.bench import Bench
from ray_jobs.evaluation.bootstrap import Resamples
from ray_jobs.evaluation.methods import READ, methods
from ray_jobs.evaluation.results import NotMeasured
from ray_jobs.evaluation.spread import Part


def _zero_shot(bench: Bench) -> dict[str, Any]:
    """Every method on every demand, and the figure."""
    subject, results = bench.subject, bench.results
    asked = demands.digest(bench.written)
    rates = results.of("base rates", [], lambda: zero_shot.base_rates(subject.earlier))
    measured = {}
    listed = methods(subject)
    for name, method in listed.items():

        def work(method: zero_shot.Method = method) -> dict[str, Any]:
            resamples = Resamples([str(user) for user in subject.protocol.everyone])
            asked = demands.demands(subject.tasks, bench.written)
            return zero_shot.measure(method, asked, resamples, rates)

        measured[name] = results.of(f"zero-shot {name}", [asked], work)
    told, read = ([name for name, method in listed.items() if method.is_count and method.reads == r]
                  for r in (False, True))  # fmt: skip
    by_name = {name: one for name, one in measured.items() if name not in read}
    found: dict[str, Any] = {
        "zero_shot": zero_shot.table(by_name, "name"),
        "paraphrase": zero_shot.table(measured, "paraphrase"),
        "strict": zero_shot.table(measured, demands.STRICT),
    }
    found["against_counts"] = {
        section: zero_shot.against_counts(measured, counts, wording, ours=READ)
        for section, counts, wording in (
            ("zero_shot", told, "name"), ("paraphrase", told, "paraphrase"),
            ("paraphrase, read", read, "paraphrase"), ("strict, read", read, demands.STRICT),
        )
    }  # fmt: skip
    if not found["zero_shot"]:
        return {}
    if left_out := zero_shot.left_out(measured, rates):
        found["zero_shot_left_out"] = left_out
    visualise.zero_shot_bars(found["zero_shot"], results.out / "zero_shot.png")
    return found


def _probes(bench: Bench) -> dict[str, Any]:
    """Every embedding under the same probe."""
    subject, splits = bench.subject, bench.settings.splits
    found, left_out = {}, []
    for name, row in probe_table.rows(subject, bench.peers).items():

        def work(row: probe_table.Row = row) -> dict[str, Any]:
            return probe_table.measure(row, subject.users, subject.tasks, splits)

        try:
            found[name] = bench.results.of(f"probe {name}", [splits, row.depends], work)
        except NotMeasured as reason:
            left_out.append(f"{name}: {reason}.")
    return {"probes": found, **({"probes_left_out": left_out} if left_out else {})}


def _map(bench: Bench) -> dict[str, Any]:
    """Figure 4: the fused vectors on a plane, coloured by what became of the users."""
    subject, results, name = bench.subject, bench.results, "outcomes.png"

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


def _cost(bench: Bench) -> dict[str, Any]:
    """Parameters, seconds, bytes."""
    return {"cost": bench.results.of("cost", [], lambda: cost.measure(bench.subject))}


def _reliability(bench: Bench) -> dict[str, Any]:
    """Probabilities against what happened; nothing where no earlier snapshot taught any."""
    inputs = [manifest.id for manifest in SnapshotStore(bench.subject.workspace).list()]
    found = bench.results.of("reliability", inputs, lambda: reliability.measure(bench.subject))
    return {"reliability": found}


def _lookalikes(bench: Bench) -> dict[str, Any]:
    """Seed users beside the sentence, by how many they are."""
    found = bench.results.of("lookalikes", [], lambda: lookalikes.measure(bench.subject))
    return {"lookalikes": found}


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "zero-shot": _zero_shot, "probes": _probes, "map": _map, "cost": _cost,
    "reliability": _reliability, "lookalikes": _lookalikes,
    "few-shot": few_shot_sections.of_few_shot, **trained.SECTIONS,
    "prompt-tokens": few_shot_sections.of_prompt_tokens,
}  # fmt: skip
PARTS: dict[str, Callable[[Bench], dict[str, Part]]] = {
    "few-shot": few_shot_sections.few_shot_parts, **trained.PARTS,
    "prompt-tokens": few_shot_sections.token_parts,
}  # fmt: skip
LONG = (*trained.PARTS, "prompt-tokens")
"""Measured only if asked for: each takes a quarter of an hour or more."""
