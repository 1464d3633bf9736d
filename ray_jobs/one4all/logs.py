"""Raw logs of users before a date, as tensors: what P-Trans and T-Trans read.

The paper's product has four categories and a text; Complete Journey has three levels and a brand,
which stands as the fourth. A product bought several times on a day is one event (One4all 4.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from encoders.logs import LogEmbedding, Logs
from encoders.text import LineEncoder
from encoders.transfer import HIDDEN
from feature_repo.transforms import DAY_US, data_span, micros

LENGTH = 128
DATE_PARTS = ("year", "month", "day", "weekday", "hour")
_LEVELS = 3


@dataclass(frozen=True)
class LogTable:
    """The logs of some users, and what their numbers mean."""

    logs: Logs
    lengths: np.ndarray  # int64 [N], how many events there are, also beyond the latest L
    categories: tuple[int, ...]  # how many values each category has, 0 = unknown included
    dates: tuple[int, ...]
    texts: list[str]  # of Logs.texts_NL

    def embedding(self, lines: LineEncoder) -> LogEmbedding:
        """A fresh embedding of these logs' events."""
        return LogEmbedding(
            categories=self.categories, dates=self.dates, hidden=HIDDEN,
            texts_VE=torch.from_numpy(lines(self.texts)), length=self.logs.mask_NL.shape[1],
        )  # fmt: skip

    def bytes_per_user(self, events: int) -> float:
        """Mean bytes of a user's latest events: narrow integers, each text as a row number."""
        each = 2 * len(self.categories) + len(self.dates) + 4
        return float(np.minimum(self.lengths, events).mean()) * each


def purchases(
    con: duckdb.DuckDBPyConnection, cutoff: datetime, users: Sequence[str], *,
    length: int = LENGTH, days: int | None = None,
) -> LogTable:  # fmt: skip
    """The latest purchases of users that were known strictly before ``cutoff``.

    Args:
        days: forget what was bought earlier than that many days before; default nothing.
    """
    levels = ", ".join(f"categories[{n + 1}] AS c{n}" for n in range(_LEVELS))
    table = con.sql(
        f"""WITH daily AS (
            SELECT user_id, item_id, min(epoch_us(timestamp)) AS moment FROM known_events
            WHERE source = 'bill' AND seen < $t AND epoch_us(timestamp) >= $since
            GROUP BY user_id, item_id, epoch_us(timestamp) // {DAY_US})
        SELECT user_id, moment, text, {levels}, brand AS c{_LEVELS}
        FROM daily JOIN items USING (item_id) ORDER BY user_id, moment, item_id""",
        params={"t": micros(cutoff), "since": _since(cutoff, days)},
    ).to_arrow_table()
    return tensors(table, users, length=length)


def months_known(con: duckdb.DuckDBPyConnection, cutoff: datetime) -> float:
    """How many months of events lie before a date."""
    first, _ = data_span(con)
    return (micros(cutoff) - first) / DAY_US / 30.4


def tensors(table: pa.Table, users: Sequence[str], *, length: int = LENGTH) -> LogTable:
    """Events as logs.

    Args:
        table: user_id, moment (microseconds), text, and categories as further columns of strings;
            each user's rows oldest first.
    """
    wanted = pc.is_in(table["user_id"], value_set=pa.array(list(users), pa.string()))
    table = table.filter(wanted)
    row = pc.index_in(table["user_id"], value_set=pa.array(list(users), pa.string())).to_numpy()
    order = np.argsort(row, kind="stable")
    table, row = table.take(order), row[order].astype(np.int64)
    lengths = np.bincount(row, minlength=len(users))
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    place = np.arange(len(row)) - first[row] - np.maximum(lengths[row] - length, 0)
    kept = place >= 0
    table, at = table.filter(pa.array(kept)), (row[kept], place[kept])

    names = [name for name in table.column_names if name not in ("user_id", "moment", "text")]
    numbered = [_numbered(table[name]) for name in names]
    text, texts = _numbered(table["text"])
    dates, sizes = _dates(table["moment"].to_numpy())
    logs = Logs.empty(len(users), length=length, categories=len(names), dates=len(DATE_PARTS))
    for n, (values, _) in enumerate(numbered):
        logs.categories_NLC.numpy()[(*at, n)] = values
    logs.dates_NLD.numpy()[at] = dates
    logs.texts_NL.numpy()[at] = text
    logs.mask_NL.numpy()[at] = True
    vocabularies = tuple(len(known) for _, known in numbered)
    return LogTable(logs, lengths, vocabularies, sizes, texts)


def _numbered(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Values as numbers from 1, and their names in order; 0, the empty one, is unknown."""
    known = sorted(set(column.to_pylist()) - {None, ""})
    found = pc.index_in(column, value_set=pa.array(known, pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64) + 1, ["", *known]


def _dates(at: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Year (from the first on), month, day, weekday and hour, each from 1: [P, 5]."""
    moment = at.astype("datetime64[us]")
    year, month, day = (moment.astype(f"datetime64[{unit}]") for unit in "YMD")
    years = year.astype(np.int64)
    parts = [
        years - years.min(initial=3000),
        (month - year).astype(np.int64),
        (day - month).astype(np.int64),
        (day.astype(np.int64) + 3) % 7,  # 1970 began on a Thursday
        (moment - day).astype(np.int64) // 3_600_000_000,
    ]
    last = int(parts[0].max(initial=0))
    return np.stack(parts, 1) + 1, (last + 2, 13, 32, 8, 25)


def _since(cutoff: datetime, days: int | None) -> int:
    return -(2**62) if days is None else micros(cutoff) - days * DAY_US
