"""What tells an audience from everybody, in the catalogue's words, with lifts.

Counted from the facts that a snapshot carries: for each subject, the share of the audience that did
it in the last days against the share of all users. Shares are drawn a little towards everybody's,
so that one buyer among ten is no lift of a hundred.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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

_SHARES = """
SELECT s.verb, s.name, count(DISTINCT b.row) AS num_all,
       count(DISTINCT b.row) FILTER (m.row IS NOT NULL) AS num_members
FROM read_parquet($behaviour) b JOIN read_parquet($subjects) s USING (subject)
     LEFT JOIN members m ON m.row = b.row
WHERE b.day < $days AND s.name <> ''
GROUP BY s.verb, s.name ORDER BY s.verb, s.name
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
    with duckdb.connect() as con:
        con.register("members_arrow", pa.table({"row": pa.array(np.unique(rows), pa.int32())}))
        con.execute("CREATE TEMP TABLE members AS SELECT * FROM members_arrow")
        found = con.execute(
            _SHARES,
            {
                "behaviour": str(workspace.root / facts.behaviour.path),
                "subjects": str(workspace.root / facts.subjects.path), "days": days,
            },
        ).fetchall()  # fmt: skip
    size = len(np.unique(rows))
    told = [
        _distinction(verb, name, members, everybody, size, manifest.num_users)
        for verb, name, everybody, members in found
        if members >= _LEAST
    ]
    above = [one for one in told if one.deviations > 0]
    return sorted(above, key=lambda one: (-one.deviations, one.verb, one.subject))[:num]


def _distinction(
    verb: str, subject: str, members: int, everybody: int, size: int, users: int
) -> Distinction:
    share = everybody / users
    drawn = (members + _PRIOR * share) / (size + _PRIOR)
    error = math.sqrt(max(share * (1 - share), 1e-9) / size)
    return Distinction(
        verb, subject, members / size, share, drawn / share, (members / size - share) / error
    )
