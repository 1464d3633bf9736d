"""What tells an audience from everybody, in the catalogue's words, with lifts.

Counted from the facts that a snapshot carries: for each subject, the share of the audience that did
it in the last days against the share of all users. Shares are drawn a little towards everybody's,
so that one buyer among ten is no lift of a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_repo.errors import NotCarried
from feature_repo.manifest import Manifest
from feature_repo.settings import Workspace

_PRIOR: Final = 5.0  # users that the audience's share is drawn to everybody's by
_LEAST: Final = 5  # members who did it, below which nothing is said

# One row per user and subject first: counting distinct rows by subject takes five times as long.
_EVERYBODY = """
SELECT subject, count(*) AS users
FROM (SELECT DISTINCT subject, row FROM read_parquet($behaviour) WHERE day < $days)
GROUP BY subject
"""
_MEMBERS = """
WITH members AS (SELECT row FROM members_arrow),
done AS (SELECT DISTINCT subject, row FROM read_parquet($behaviour) SEMI JOIN members USING (row)
         WHERE day < $days)
SELECT s.subject, s.verb, s.name, count(*) AS users
FROM done JOIN read_parquet($subjects) s USING (subject)
WHERE s.name <> '' GROUP BY ALL ORDER BY s.verb, s.name
"""


@dataclass(frozen=True)
class Distinction:
    """One subject: ``share`` of the audience did it, ``everybody`` of all users."""

    verb: str
    subject: str
    share: float
    everybody: float
    lift: float
    deviations: float  # standard errors that the share lies off everybody's


def distinguishing(
    workspace: Workspace, manifest: Manifest, rows: npt.NDArray[np.int64], *, days: int = 84,
    num: int = 10,
) -> list[Distinction]:  # fmt: skip
    """The subjects that an audience did most more often than everybody, the surest first.

    Args:
        rows: the members' rows in the matrices.

    Raises:
        NotCarried: the snapshot carries no facts.
    """
    facts = manifest.facts
    if facts is None:
        raise NotCarried(
            f"snapshot {manifest.id} carries no facts, so its audiences cannot be described; "
            "embed and publish it again"
        )
    members = np.unique(rows).astype(np.int32)
    behaviour = str(workspace.root / facts.behaviour.path)
    everybody = _everybody(behaviour, days)
    with _connected() as con:
        con.register("members_arrow", pa.table({"row": members}))
        asked = {"behaviour": behaviour, "days": days}
        asked["subjects"] = str(workspace.root / facts.subjects.path)
        found = con.execute(_MEMBERS, asked).fetchall()
    told = [
        _distinction(verb, name, count, everybody[subject], len(members), manifest.num_users)
        for subject, verb, name, count in found
        if count >= _LEAST
    ]
    above = [one for one in told if one.deviations > 0]
    return sorted(above, key=lambda one: (-one.deviations, one.verb, one.subject))[:num]


@lru_cache(maxsize=16)
def _everybody(behaviour: str, days: int) -> dict[int, int]:
    """Subject → how many users did it; kept, since a snapshot's facts never change."""
    with _connected() as con:
        asked = {"behaviour": behaviour, "days": days}
        return dict(con.execute(_EVERYBODY, asked).fetchall())


def _connected() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"threads": 2})
    con.execute("SET enable_progress_bar = false")  # it would draw on the service's log
    return con


def _distinction(
    verb: str, subject: str, members: int, everybody: int, size: int, users: int
) -> Distinction:
    share = everybody / users
    drawn = (members + _PRIOR * share) / (size + _PRIOR)
    error = math.sqrt(max(share * (1 - share), 1e-9) / size)
    return Distinction(
        verb, subject, members / size, share, drawn / share, (members / size - share) / error
    )
