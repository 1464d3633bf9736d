"""Hand-made features of households at any cut-off, from one pass over the receipts.

RFM: recency, frequency and money over several windows, regularity, coupons. Category counts:
distinct baskets with each product category over 4, 12 and 44 weeks. Only what was known strictly
before the cut-off is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.transforms import DAY_US, micros

RFM_DAYS: Final = (7, 14, 28, 56, 84, 182, 308)
CATEGORY_DAYS: Final = (28, 84, 308)
OWN_DAYS: Final = (14, 28, 56, 84, 182, 365)
_HALF_LIVES: Final = (20.0, 60.0, 180.0)
_NEVER = 1_000.0  # days since something that never happened


class Receipts:
    """All baskets and their categories as arrays; features are sums over them."""

    def __init__(self, con: duckdb.DuckDBPyConnection):
        baskets = con.sql(
            """SELECT user_id, max(seen) AS moment, count(*) AS lines,
                      sum(amount::DECIMAL(18, 4))::DOUBLE AS amount,
                      sum(discount::DECIMAL(18, 4))::DOUBLE AS discount
            FROM known_events WHERE source = 'bill'
            GROUP BY user_id, coalesce(basket_id, event_id) ORDER BY ALL"""
        ).to_arrow_table()
        bought = con.sql(
            """SELECT user_id, coalesce(categories[2], categories[1]) AS category,
                      max(seen) AS moment
            FROM known_events JOIN items USING (item_id) WHERE source = 'bill'
            AND category IS NOT NULL
            GROUP BY user_id, coalesce(basket_id, event_id), category ORDER BY ALL"""
        ).to_arrow_table()
        campaigns = con.sql(
            """SELECT user_id, greatest(epoch_us(timestamp), epoch_us(known_at)) AS moment,
                      kind = 'redeemed' AS redeemed FROM exposures ORDER BY ALL"""
        ).to_arrow_table()
        self.categories = sorted(set(bought["category"].to_pylist()) - {None})
        self._baskets, self._bought, self._campaigns = baskets, bought, campaigns
        self._category = _index(bought["category"], self.categories)

    def rfm(self, cutoff: datetime, users: Sequence[str]) -> np.ndarray:
        """Recency, frequency, money: float64 [N, 42]."""
        row, age, keep = self._known(self._baskets, cutoff, users)
        amount, discount, lines = (
            np.nan_to_num(self._baskets[name].to_numpy()[keep].astype(float))
            for name in ("amount", "discount", "lines")
        )
        columns = []
        spent: dict[int, np.ndarray] = {}
        for days in RFM_DAYS:
            inside = age <= days
            spent[days] = _sums(row, amount * inside, len(users))
            columns += [_sums(row, inside, len(users)), spent[days]]
            columns += [_sums(row, values * inside, len(users)) for values in (discount, lines)]
        columns += [_sums(row, 0.5 ** (age / half), len(users)) for half in _HALF_LIVES]
        columns += [_least(row, age, len(users)), -_least(row, -age, len(users), 0.0)]
        baskets = np.maximum(_sums(row, np.ones(len(row)), len(users)), 1)
        columns.append(_sums(row, amount, len(users)) / baskets)
        columns.append((2 * spent[28] - spent[56]) / (spent[56] + 1.0))
        who, when, known = self._known(self._campaigns, cutoff, users)
        redeemed = self._campaigns["redeemed"].to_numpy(zero_copy_only=False)[known]
        for days in (28, 56, 182):
            columns.append(_sums(who, redeemed * (when <= days), len(users)))
            columns.append(_sums(who, ~redeemed * (when <= days), len(users)))
        columns.append(_least(who[redeemed], when[redeemed], len(users)))
        return np.stack(columns, 1)

    def category_counts(self, cutoff: datetime, users: Sequence[str]) -> np.ndarray:
        """Distinct baskets with each category over three windows: float64 [N, 3 · categories]."""
        row, age, keep = self._known(self._bought, cutoff, users)
        cell = row * len(self.categories) + self._category[keep]
        size = len(users) * len(self.categories)
        blocks = [
            np.bincount(cell, age <= days, size).reshape(len(users), -1) for days in CATEGORY_DAYS
        ]
        return np.concatenate(blocks, 1)

    def own(self, category: str, cutoff: datetime, users: Sequence[str]) -> np.ndarray:
        """All about one category: counts over windows, decayed, first and last: float64 [N, 11]."""
        row, age, keep = self._known(self._bought, cutoff, users)
        here = self._category[keep] == self.categories.index(category)
        row, age = row[here], age[here]
        columns = [_sums(row, age <= days, len(users)) for days in OWN_DAYS]
        columns += [_sums(row, 0.5 ** (age / half), len(users)) for half in _HALF_LIVES]
        columns += [_least(row, age, len(users)), -_least(row, -age, len(users), _NEVER)]
        return np.stack(columns, 1)

    def bought(
        self, cutoff: datetime, users: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every basket with a category: row of the user, age in days, index of the category."""
        row, age, keep = self._known(self._bought, cutoff, users)
        return row, age, self._category[keep]

    @staticmethod
    def _known(
        table: pa.Table, cutoff: datetime, users: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row of ``users``, age in days, and the mask of the table's rows known by then."""
        row, at = _index(table["user_id"], users), table["moment"].to_numpy()
        keep = (at < micros(cutoff)) & (row >= 0)
        return row[keep], (micros(cutoff) - at[keep]) / DAY_US, keep


def _index(column: pa.ChunkedArray, values: Sequence[str]) -> np.ndarray:
    found = pc.index_in(column, value_set=pa.array(list(values), pa.string()))
    return pc.fill_null(found, -1).to_numpy().astype(np.int64)


def _sums(row: np.ndarray, values: np.ndarray, num: int) -> np.ndarray:
    return np.bincount(row, values, num)


def _least(row: np.ndarray, values: np.ndarray, num: int, otherwise: float = _NEVER) -> np.ndarray:
    least = np.full(num, np.inf)
    np.minimum.at(least, row, values)
    return np.where(np.isfinite(least), least, otherwise)
