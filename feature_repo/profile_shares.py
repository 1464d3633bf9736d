"""How an audience's profiles differ from everybody's, from the facts that a snapshot carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.errors import NotCarried
from feature_repo.manifest import Manifest
from feature_repo.schema import AGGREGATE_PREFIX
from feature_repo.settings import Workspace

_PRIOR: Final = 5.0  # users that the audience's share is drawn to everybody's by
_VALUES: Final = 8  # of a column with many, those that most members have


@dataclass(frozen=True)
class ProfileShare:
    """One value of a column: ``share`` of the audience has it, ``everybody`` of all users."""

    column: str
    value: str | None  # a range for numbers; None where nothing is known
    share: float
    everybody: float
    lift: float


def profile_shares(
    workspace: Workspace, manifest: Manifest, rows: npt.NDArray[np.int64]
) -> list[ProfileShare]:
    """Shares of profile values, by column; numbers in quarters of everybody's range.

    Left out are numeric hand-made aggregates, which come as bins too, and values nobody has.

    Args:
        rows: the members' rows in the matrices, each once.

    Raises:
        NotCarried: the snapshot carries no facts.
    """
    if manifest.facts is None:
        raise NotCarried(
            f"snapshot {manifest.id} carries no facts, so its audiences cannot be described; "
            "embed and publish it again"
        )
    path = workspace.root / manifest.facts.profiles.path
    found: list[ProfileShare] = []
    for field in pq.read_schema(path):
        number = not pa.types.is_string(field.type)
        if number and field.name.startswith(AGGREGATE_PREFIX):
            continue
        column = pq.read_table(path, columns=[field.name])[field.name]
        values = _quarters(column) if number else column
        found += _shares(field.name, values, rows)
    return found


def _shares(name: str, values: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> list[ProfileShare]:
    everybody = _counts(values)
    members = _counts(values.take(pa.array(rows)))
    told = sorted(everybody, key=lambda v: (-members.get(v, 0), -everybody[v], str(v)))[:_VALUES]
    shares = []
    for value in told:
        share, own = everybody[value] / len(values), members.get(value, 0)
        lift = (own + _PRIOR * share) / (len(rows) + _PRIOR) / share
        shares.append(ProfileShare(name, value, own / max(len(rows), 1), share, lift))
    return shares


def _counts(values: pa.ChunkedArray) -> dict[str | None, int]:
    return {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}


def _quarters(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers as ranges between everybody's quartiles, as text; null stays null."""
    numbers = column.to_numpy().astype(np.float64)
    known = np.isfinite(numbers)
    if not known.any():
        return pa.chunked_array([pa.nulls(len(numbers), pa.string())])
    edges = np.unique(np.quantile(numbers[known], (0, 0.25, 0.5, 0.75, 1)))
    place = np.clip(np.searchsorted(edges, numbers, "right") - 1, 0, max(len(edges) - 2, 0))
    names = [f"{low:g} to {high:g}" for low, high in zip(edges, edges[1:], strict=False)]
    texts = np.array(names or [f"{edges[0]:g}"], object)[place]
    return pa.chunked_array([pa.array(texts, pa.string(), mask=~known)])
