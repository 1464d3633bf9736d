"""Raw text matching: the untuned language model, no alignment, no training.

A household is the sum of its recent lines' vectors, each halved every 60 days; its score is the
inner product with the sentence's vector. Whoever buys much of what sounds alike is first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import duckdb
import numpy as np
from scipy import sparse

from feature_repo.transforms import DAY_US, micros
from ray_jobs.protocol import Task

Encode = Callable[[Sequence[str]], np.ndarray]
WEEKS = 26
HALF_LIFE_DAYS = 60.0


def line_weights(
    con: duckdb.DuckDBPyConnection,
    cutoff: datetime,
    users: Sequence[str],
    *,
    half_life: float | None = HALF_LIFE_DAYS,
    days: int = 7 * WEEKS,
) -> tuple[sparse.csr_matrix, list[str]]:
    """How often, lately, each user bought each line: sparse [N, L], and the lines.

    Without a ``half_life`` all of the ``days`` count alike.
    """
    return _weights(con, _BOUGHT, cutoff, users, half_life, days)


def search_weights(
    con: duckdb.DuckDBPyConnection, cutoff: datetime, users: Sequence[str]
) -> tuple[sparse.csr_matrix, list[str]]:
    """How often, lately, each user searched for each text: sparse [N, L], and the texts."""
    return _weights(con, _SEARCHED, cutoff, users, HALF_LIFE_DAYS, 7 * WEEKS)


_BOUGHT = """SELECT user_id, coalesce(basket_id, event_id) AS basket, line, max(seen) AS moment
             FROM known_events JOIN item_lines USING (item_id)
             WHERE source = 'bill' AND seen < $t AND seen >= $since
             GROUP BY user_id, basket, line ORDER BY ALL"""
_SEARCHED = """SELECT user_id, text AS line, seen AS moment FROM known_searches
               WHERE seen < $t AND seen >= $since ORDER BY ALL"""


def _weights(
    con: duckdb.DuckDBPyConnection, moments: str, cutoff: datetime, users: Sequence[str],
    half_life: float | None, days: int,
) -> tuple[sparse.csr_matrix, list[str]]:  # fmt: skip
    """Of what ``moments`` tell, in its order: a sum in another one would differ."""
    weight = "1.0" if half_life is None else f"0.5 ** (($t - moment) / {half_life * DAY_US:f})"
    table = con.sql(
        f"""SELECT user_id, line, sum({weight})::DOUBLE AS weight
            FROM ({moments}) GROUP BY ALL ORDER BY ALL""",
        params={"t": micros(cutoff), "since": micros(cutoff) - days * DAY_US},
    ).to_arrow_table()
    position = {user: row for row, user in enumerate(users)}
    lines = sorted(set(table["line"].to_pylist()))
    column = {line: n for n, line in enumerate(lines)}
    cells = [
        (position[user], column[line], weight)
        for user, line, weight in zip(*(table[c].to_pylist() for c in table.column_names),
                                      strict=True)
        if user in position
    ]  # fmt: skip
    rows, columns, weights = zip(*cells, strict=True) if cells else ((), (), ())
    shape = (len(users), len(lines))
    return sparse.csr_matrix((weights, (rows, columns)), shape=shape), lines


class TextMatch:
    """Scores of a sentence by similarity with what was bought."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        cutoff: datetime,
        users: Sequence[str],
        encode: Encode,
    ):
        weights_NL, lines = line_weights(con, cutoff, users)
        self._position = {user: row for row, user in enumerate(users)}
        self._encode = encode
        self._users_NE = weights_NL @ encode(lines)

    def score(self, task: Task) -> np.ndarray:
        """Score of the task's users for its sentence, float [n]."""
        (sentence_E,) = self._encode([task.sentence or ""])
        return self._users_NE[[self._position[user] for user in task.users]] @ sentence_E
