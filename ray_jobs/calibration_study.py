"""Are the probabilities true? Held-out behaviours at every cut-off that has earlier ones.

    python -m ray_jobs.calibration_study --workspace DIR --out DIR

Needs a workspace with snapshots of several dates, each with weights trained before it (the pipeline
with an ``--as-of`` each), whose futures are known. A behaviour is predicted by a calibration that
was learnt from other behaviours (five folds) at earlier cut-offs only. Beside it: the raw score
with the model's own base rate, uncalibrated; and, for intervals, the past rate alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from scipy.special import expit

from encoders.calibration import Calibration, PastBuyers, Probabilities
from encoders.calibration_fit import Evidence, fit, fold_of
from feature_repo import durable
from feature_repo.errors import InputError
from feature_repo.settings import Workspace
from feature_repo.snapshots import SnapshotStore
from feature_repo.transforms import horizon_known, open_tables
from ray_jobs import metrics
from ray_jobs.build_features import read_dataset
from ray_jobs.calibration import evidence
from ray_jobs.command import Job, console, main

SIZES = (0.05, 0.1, 0.25, 1.0)
BINS = 10
_FOLDS = range(5)
_Z = 1.2815515655446004


class CalibrationStudy(Job):
    """Measure calibration on held-out behaviours."""

    out: str = Field(description="directory for calibration.md and calibration.json")


def run(settings: CalibrationStudy) -> dict[str, Any]:
    """Measure, write the table, return it."""
    out = Path(settings.out).resolve()
    rows = list(study(known_evidence(settings.place)))
    report = {"pairs": len(rows), **summary(rows), "each": rows}
    out.mkdir(parents=True, exist_ok=True)
    durable.write(out / "calibration.json", json.dumps(report, indent=2).encode())
    durable.write(out / "calibration.md", to_markdown(report).encode())
    console.print(f"report: {out / 'calibration.md'}")
    return report


def known_evidence(workspace: Workspace) -> list[Evidence]:
    """The evidence of one snapshot per date whose future is in the data, oldest first."""
    tables = workspace.root / read_dataset(workspace).tables
    con = open_tables(tables)
    by_date = {
        m.as_of: m
        for m in reversed(SnapshotStore(workspace).list())
        if "fused" in m.kinds and horizon_known(con, m.as_of, m.horizon_days)
    }
    con.close()
    found = []
    for date in sorted(by_date):
        manifest = by_date[date]
        over = date + timedelta(days=manifest.horizon_days)
        each = evidence(workspace, tables, manifest, known_before=over)
        found += [each] if each is not None else []
    if len(found) < 2:
        raise InputError(
            f"workspace: expected snapshots of at least two dates with a known future, got "
            f"{len(found)}; run the pipeline with an earlier --as-of too"
        )
    return found


def study(cutoffs: Sequence[Evidence]) -> Iterator[dict[str, Any]]:
    """One row per behaviour and cut-off that an earlier cut-off can speak for."""
    for at in range(1, len(cutoffs)):
        now = cutoffs[at]
        yield from held_out([e for e in cutoffs[:at] if e.cutoff < now.cutoff], now)


def held_out(over: Sequence[Evidence], now: Evidence) -> Iterator[dict[str, Any]]:
    """One row per behaviour of ``now`` that is stated by what others of it taught before."""
    for fold in _FOLDS:
        learnt = fit([e.only(_outside(e, fold)) for e in over], horizon_days=28)
        for s, name in enumerate(now.names):
            if fold_of(name) == fold:
                row = _measured(learnt, now, s)
                if row is not None:
                    yield {"cutoff": now.cutoff, "behaviour": name, **row}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of behaviours that pass, and means, per cut-off and over all."""
    groups: dict[str, list[dict[str, Any]]] = {"all": list(rows)}
    for row in rows:
        groups.setdefault(row["cutoff"], []).append(row)
    return {"groups": {name: _summed(each) for name, each in groups.items()}}


def to_markdown(report: dict[str, Any]) -> str:
    """The figures as two tables."""
    lines = [
        "# Calibration on held-out behaviours", "",
        "| cut-off | pairs | ECE | ECE ≤ .03 | Brier skill > 0 | both | uncalibrated: ECE | both |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, group in report["groups"].items():
        lines.append(
            f"| {name} | {group['pairs']} | {group['ece']:.4f} | {group['ece_passes']:.3f} | "
            f"{group['skill_passes']:.3f} | {group['both_pass']:.3f} | {group['raw_ece']:.4f} | "
            f"{group['raw_both_pass']:.3f} |"
        )
    lines += ["", "Eighty-per-cent intervals of buyers: coverage, and interval score (less is "
              "better) against the past rate's.", "",
              "| cut-off | " + " | ".join(f"best {size:.0%}" for size in SIZES) + " |",
              "|---" * (len(SIZES) + 1) + "|"]  # fmt: skip
    for name, group in report["groups"].items():
        cells = [f"{each['coverage']:.3f}; {each['score']:.1f} / {each['rate_score']:.1f}"
                 for each in group["audiences"].values()]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _outside(each: Evidence, fold: int) -> np.ndarray:
    return np.array([fold_of(name) != fold for name in each.names])


def _measured(learnt: Calibration, now: Evidence, s: int) -> dict[str, Any] | None:
    scores, happened, past = now.scores_NS[:, s], now.labels_NS[:, s], now.past[s]
    likely = learnt.probabilities(scores / learnt.scale, past)
    if not likely.grounded:
        return None
    assert now.base_S is not None  # as of every snapshot's own evidence
    rate = np.full(len(scores), past.last / past.users)
    raw = expit(scores + now.base_S[s])
    order = np.argsort(-scores, kind="stable")
    return {
        "past_rate": float(rate[0]), "rate": float(happened.mean()),
        "ece": metrics.calibration_error(likely.p_N, happened),
        "skill": metrics.brier_skill(likely.p_N, happened, rate),
        "bins": _bins(likely.p_N, happened),
        "raw_ece": metrics.calibration_error(raw, happened),
        "raw_skill": metrics.brier_skill(raw, happened, rate),
        "audiences": {
            str(size): _interval(learnt, likely, order[: max(1, round(size * len(order)))],
                                 happened, past)
            for size in SIZES
        },
    }  # fmt: skip


def _bins(p_N: np.ndarray, happened: np.ndarray) -> list[list[float]]:
    """Per bin of the stated probability: users, their probabilities' sum, who did it. [BINS, 3]"""
    at = np.minimum((p_N * BINS).astype(int), BINS - 1)
    columns = [np.bincount(at, weights, BINS) for weights in (None, p_N, happened)]
    return [list(map(float, row)) for row in zip(*columns, strict=True)]


def _interval(
    learnt: Calibration, likely: Probabilities, rows: np.ndarray, happened: np.ndarray,
    past: PastBuyers,
) -> dict[str, float]:  # fmt: skip
    expected, low, high = likely.buyers(rows)
    bought = int(happened[rows].sum())
    rate = past.last / past.users
    same = len(rows) * rate
    spread = math.hypot(learnt.spread, past.last**-0.5) * same * (1 - rate)
    half = _Z * math.hypot(math.sqrt(same * (1 - rate)), spread)
    return {
        "buyers": bought, "expected": expected, "inside": float(low <= bought <= high),
        "score": metrics.interval_score(low, high, bought),
        "rate_score": metrics.interval_score(max(0.0, same - half), same + half, bought),
    }  # fmt: skip


def _summed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def share(good: Any) -> float:
        return float(np.mean([good(row) for row in rows])) if rows else float("nan")

    def both(prefix: str) -> float:
        return share(lambda row: row[f"{prefix}ece"] <= 0.03 and row[f"{prefix}skill"] > 0)

    return {
        "pairs": len(rows),
        "ece": share(lambda row: row["ece"]), "raw_ece": share(lambda row: row["raw_ece"]),
        "ece_passes": share(lambda row: row["ece"] <= 0.03),
        "skill_passes": share(lambda row: row["skill"] > 0),
        "both_pass": both(""), "raw_both_pass": both("raw_"),
        "audiences": {
            str(size): {
                name: share(lambda row, s=str(size), n=key: row["audiences"][s][n])
                for name, key in (("coverage", "inside"), ("score", "score"),
                                  ("rate_score", "rate_score"))
            }
            for size in SIZES
        },
    }  # fmt: skip


if __name__ == "__main__":
    main(CalibrationStudy, run)
