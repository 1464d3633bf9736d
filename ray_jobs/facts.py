"""Which facts of the data sentences are made of."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.presets import Preset


def selected(facts: pa.Table, preset: Preset) -> pa.Table:
    """The facts that a preset asks for: coarse enough, not held out, and frequent."""
    told = without(coarse(facts, preset.fact_levels), preset.unseen)
    return most_frequent(told, preset.max_facts)


def coarse(facts: pa.Table, levels: int | None) -> pa.Table:
    """Facts about the ``levels`` coarsest levels of the taxonomy; all of them if None."""
    return facts if levels is None else facts.filter(pc.less_equal(facts["level"], levels))


def without(facts: pa.Table, subjects: Sequence[str]) -> pa.Table:
    """Facts that are about none of ``subjects``."""
    named = pc.is_in(facts["subject"], value_set=pa.array(subjects, pa.string()))
    return facts.filter(pc.invert(named))


def most_frequent(facts: pa.Table, num: int) -> pa.Table:
    """The rows of the ``num`` facts (kind and subject) that occur most; ties by name."""
    counts = facts.group_by(["kind", "subject"]).aggregate([("user_id", "count")])
    order = [("user_id_count", "descending"), ("kind", "ascending"), ("subject", "ascending")]
    kept = counts.sort_by(order).slice(0, num).select(["kind", "subject"])
    return facts.join(kept, ["kind", "subject"], join_type="inner").sort_by(
        [("cutoff", "ascending"), ("user_id", "ascending"), ("kind", "ascending"),
         ("subject", "ascending")]
    )  # fmt: skip
