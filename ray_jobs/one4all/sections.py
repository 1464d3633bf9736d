"""The sections of the suite: each a function from a bench to plain values for the report.

What trains models is in parts that need nothing of each other, so that ``spread`` can measure them
at the same time; a section then finds their results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from encoders.transfer import Build, UMlp
from feature_repo.transforms import open_tables
from ray_jobs import visualise
from ray_jobs.command import console
from ray_jobs.evaluation.ablations import Variant
from ray_jobs.evaluation.bootstrap import Resamples
from ray_jobs.evaluation.spread import Part
from ray_jobs.one4all import compare, cost, logs, movielens, pretraining
from ray_jobs.one4all.compare import World
from ray_jobs.one4all.pretraining import AUGMENTATION, MONTHS, Pretrained
from ray_jobs.one4all.settings import Bench
from ray_jobs.one4all.tasks import Downstream

OURS = "U-MLP"
_STUDIED = ("age 45+", "coupon use", "lapse", "coupon recommendation", "next basket")
"""Tasks of the studies that pre-train anew: one of each sort, and both recommendations."""
_TUNED = ("coupon use", "lapse")


def tasks(bench: Bench) -> dict[str, Any]:
    """Tables 4 and 6: every model on every task."""
    found = _measured_all(_tasks(bench))
    return {"tasks": found, "score": _score(found)}


def _tasks(bench: Bench) -> dict[str, Part]:
    return {
        name: partial(_task, bench, make)
        for name, make in bench.tasks.listed().items()
        if bench.wanted(name)
    }


def _task(bench: Bench, make: Callable[[], Downstream]) -> dict[str, Any]:
    return _all_models(bench, bench.world, make(), "complete journey")


def movies(bench: Bench) -> dict[str, Any]:
    """The same on MovieLens-100k, with an embedding trained on the users' pasts."""
    found = _measured_all(_movies(bench))
    if not found:
        console.print("[yellow]without MovieLens[/] (requirements/movielens.txt, or --movielens): "
                      "its tasks are left out")  # fmt: skip
    return found


def _movies(bench: Bench) -> dict[str, Part]:
    path = movielens.find(bench.settings.movielens)
    return {} if path is None else {"movielens": partial(_movie_tasks, bench, path)}


def _movie_tasks(bench: Bench, path: Path) -> dict[str, Any]:
    data = movielens.Movies.open(path)
    trained = pretraining.pretrain(
        bench.results.out / "movielens", movielens.NAME, data.tables(), movielens.as_of(data),
        pretraining.OURS, workers=bench.workers, cache=bench.subject.workspace.cache,
    )  # fmt: skip
    con = open_tables(data.tables())
    lines = bench.subject.lines
    raw = logs.purchases(con, movielens.as_of(data), data.users, length=bench.settings.length)
    world = World(data.users, trained.of(data.users), raw, lines)
    both = (data.likes(lines, length=bench.settings.length), data.women())
    return {task.name: _all_models(bench, world, task, movielens.NAME) for task in both}


def _all_models(bench: Bench, world: World, task: Downstream, data: str) -> dict[str, Any]:
    """Figures of each model, ours against the others, cold and heavy users."""
    models = world.models(task)
    measured = {name: _measured(bench, world, task, name, data, build)
                for name, build in models.items()}  # fmt: skip
    resamples = Resamples([str(user) for user in task.users])
    found: dict[str, Any] = {
        "kind": task.kind, "users": len(task.users),
        "models": {name: _row(result) for name, result in measured.items()},
        "against": {
            name: compare.against(task, measured[OURS], result, resamples)
            for name, result in measured.items() if name != OURS
        },
    }  # fmt: skip
    if task.kind == "recommendation":
        taken = task.objective.taken_NM  # type: ignore[union-attr]
        found |= {"items": taken.shape[1], "pairs": int(taken.sum())}
        reference = compare.popular(task, bench.settings.repeats)
        found["popularity"] = compare.means(reference)
        found["extremes"] = {
            name: compare.extremes(task, measured[name])
            for name in (OURS, "T-Trans") if name in measured
        }  # fmt: skip
    else:
        found["positives"] = int(task.groups.sum())
    return found


def _measured(
    bench: Bench, world: World, task: Downstream, name: str, data: str, build: Build
) -> dict[str, Any]:
    inputs = world.inputs(task)

    def work() -> dict[str, Any]:
        return compare.run(task, name, build, inputs, bench.fitting, bench.settings.repeats)

    done: dict[str, Any] = bench.results.of(f"{data} {task.name} {name}", bench.inputs, work)
    return done


def _row(result: Mapping[str, Any]) -> dict[str, Any]:
    epochs = [each["epochs"] for each in result["repeats"]]
    return {**compare.means(result), "rate": result["rate"], "epochs": epochs,
            "parameters": result["parameters"], "seconds": result["seconds"]}  # fmt: skip


def _score(found: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Rival → in how many tasks ours wins, ties and loses."""
    score: dict[str, dict[str, int]] = {}
    for task in found.values():
        for name, row in task["against"].items():
            counts = score.setdefault(name, {"win": 0, "tie": 0, "loss": 0})
            counts[row["verdict"]] += 1
    return score


def fine_tuning(bench: Bench) -> dict[str, Any]:
    """Table 5: the encoder tuned for a task against U-MLP on its frozen embedding."""
    if not bench.tunable:
        console.print(f"  {bench.kind} has no encoder that can be tuned: left out")
        return {}
    return {"fine_tuning": _measured_all(_tunings(bench))}


def _tunings(bench: Bench) -> dict[str, Part]:
    listed = bench.tasks.listed()
    wanted = [name for name in _TUNED if bench.tunable and bench.wanted(name)]
    return {name: partial(_tuned, bench, listed[name]) for name in wanted if name in listed}


def _tuned(bench: Bench, make: Callable[[], Downstream]) -> dict[str, Any]:
    task, world = make(), bench.world
    builds: dict[str, Build] = {"fine-tuned": world.fine_tuned, OURS: world.models(task)[OURS]}
    rows = {model: _measured(bench, world, task, model, "complete journey", build)
            for model, build in builds.items()}  # fmt: skip
    resamples = Resamples([str(user) for user in task.users])
    return {
        "models": {model: _row(row) for model, row in rows.items()},
        "against": compare.against(task, rows[OURS], rows["fine-tuned"], resamples),
    }


def augmentation(bench: Bench) -> dict[str, Any]:
    """Table 4's four pre-trainings, MP and CLS with and without augmentation, under U-MLP."""
    return {"augmentation": _measured_all(_variants(bench))}


def _variants(bench: Bench) -> dict[str, Part]:
    return {
        each.name: partial(_studied, bench, each.name, partial(_pretrained, bench, each))
        for each in AUGMENTATION
    }


def history(bench: Bench) -> dict[str, Any]:
    """Figure 3: pre-trained on the last months of the same users' purchases."""
    found = _measured_all(_histories(bench))
    have = logs.months_known(bench.subject.con, bench.subject.manifest.as_of)
    visualise.history_lines(found, bench.results.out / "history.png")
    return {"history": {"months": found, "known": have}}


def _histories(bench: Bench) -> dict[str, Part]:
    return {
        str(n): partial(_studied, bench, f"{n} months", partial(_shortened, bench, n))
        for n in MONTHS
    }


def _studied(bench: Bench, name: str, make: Callable[[], Pretrained]) -> dict[str, Any]:
    """Task → figures of U-MLP on one pre-training."""
    users = bench.subject.users
    kept: list[World] = []

    def world() -> World:
        if not kept:
            vectors = make().of(users)
            kept.append(replace(bench.world, vectors_NU=vectors, encoder=None))
        return kept[0]

    found = {}
    for task_name, made in bench.tasks.listed().items():
        if task_name not in _STUDIED or not bench.wanted(task_name):
            continue

        def work(made: Callable[[], Downstream] = made) -> dict[str, Any]:
            task, here = made(), world()
            dim = here.vectors_NU.shape[1]
            result = compare.run(
                task, OURS, lambda out: UMlp(embedding_dim=dim, out=out), here.inputs(task),
                bench.fitting, bench.settings.repeats,
            )  # fmt: skip
            return _row(result)

        found[task_name] = bench.results.of(f"{name} {task_name}", bench.inputs, work)
    return found


def _pretrained(bench: Bench, variant: Variant) -> Pretrained:
    subject = bench.subject
    return pretraining.pretrain(
        bench.results.out / f"augmentation-{variant.name.replace(' ', '-')}", subject.dataset.name,
        (subject.workspace.root / subject.dataset.tables).resolve(), subject.manifest.as_of,
        variant, workers=bench.workers, cache=subject.workspace.cache,
    )  # fmt: skip


def _shortened(bench: Bench, months: int) -> Pretrained:
    subject, when = bench.subject, bench.subject.manifest.as_of
    return pretraining.pretrain(
        bench.results.out / f"history-{months}", subject.dataset.name,
        pretraining.latest_months(subject.con, when, months), when, pretraining.OURS,
        workers=bench.workers, cache=subject.workspace.cache,
    )  # fmt: skip


def costs(bench: Bench) -> dict[str, Any]:
    """Table 3, on the task of Table 3's kind: coupon use."""
    make = bench.tasks.listed()["coupon use"]
    measured = bench.results.of(
        "cost", bench.inputs, lambda: cost.measure(bench.world, make())
    )  # fmt: skip
    return {"cost": measured}


def maps(bench: Bench) -> dict[str, Any]:
    """Figure 2: embeddings on a plane, coloured by what pretext tasks never saw."""
    labels = bench.tasks.known_labels(bench.subject.users)
    if not labels:
        console.print("  the embeddings have seen every profile: no map")
        return {}
    made = {}
    for name, values in labels.items():
        rows = [n for n, value in enumerate(values) if value is not None]
        method = visualise.plane_method()
        path = bench.results.out / f"users_by_{name}.png"
        visualise.embedding_map(
            np.asarray(bench.vectors)[rows], [str(values[n]) for n in rows], path, method=method,
            title=f"{bench.kind} vectors of {len(rows)} households by {name} ({method})",
        )  # fmt: skip
        made[Path(path).name] = method
    return {"maps": made}


def _measured_all(parts: dict[str, Part]) -> dict[str, Any]:
    found = {}
    for name, measure in parts.items():
        console.print(f"  {name}")
        found[name] = measure()
    return found


PARTS: dict[str, Callable[[Bench], dict[str, Part]]] = {
    "tasks": _tasks, "movielens": _movies, "fine-tuning": _tunings, "augmentation": _variants,
    "history": _histories,
}  # fmt: skip

SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "tasks": tasks, "movielens": movies, "fine-tuning": fine_tuning, "augmentation": augmentation,
    "history": history, "cost": costs, "map": maps,
}  # fmt: skip
