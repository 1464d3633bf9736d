"""What a user did in the last weeks, in numbers made by hand: recency, frequency, spend, bins.

Sums over the last weeks are differences of running sums. They are made here and not in SQL, where
each span of each number is a window of its own: they took a third of the view's time.
Totals come as integers, so a sum does not depend on what was added before.

Shapes: R rows (a user's weeks stand together, oldest first, none missing), S totals.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.schema import AGGREGATE_PREFIX

_MONEY_UNIT: Final = 10_000  # money and quantities come in ten-thousandths
_DAY_US: Final = 24 * 3600 * 1_000_000

TOTALS: Final = {
    "baskets": 1, "spend": _MONEY_UNIT, "units": _MONEY_UNIT, "discount": _MONEY_UNIT, "lines": 1,
    "private_lines": 1, "coupons": 1, "clicks": 1, "mini_programs": 1, "exposures": 1,
    "redemptions": 1,
}  # fmt: skip
"""The totals of a week, and how many of their units make one."""

_HALF_YEAR: Final = 26
_SPANS: Final = (4, 12, _HALF_YEAR)
_SHORT_SPANS: Final = (1, 2, 8)  # of baskets and spend only: who is slowing down shows in weeks
_OF_TIERS: Final = {"units", "lines", "private_lines"}  # which are no columns themselves
_BINS: Final = {7: "this week", 14: "last week", 28: "this month", 56: "last month"}


class Aggregates:
    """The weeks of some users, and what they add up to.

    Args:
        weeks: int64 columns :data:`TOTALS`, ``window_end`` (microseconds), and ``first_at`` and
            ``last_at``, null in a week without events; sorted by user and window end.
        anchor_us: the end of everybody's last window.
    """

    def __init__(self, weeks: pa.Table, anchor_us: int):
        self._end_R = weeks["window_end"].to_numpy()
        row_R = np.arange(len(weeks))
        is_first = np.ones(len(weeks), bool)
        is_first[1:] = self._end_R[:-1] == anchor_us
        self._first_R = np.maximum.accumulate(np.where(is_first, row_R, 0))
        totals_RS = np.stack([weeks[name].to_numpy() for name in TOTALS], 1)
        until_RS = np.concatenate([np.zeros_like(totals_RS[:1]), totals_RS.cumsum(0)])
        self._sums: dict[tuple[str, int], np.ndarray] = {}
        for span in (*_SHORT_SPANS, *_SPANS):
            sums_RS = until_RS[1:] - until_RS[np.maximum(row_R + 1 - span, self._first_R)]
            for s, (name, unit) in enumerate(TOTALS.items()):
                self._sums[name, span] = sums_RS[:, s] / unit
        self._read_times(weeks, is_first)

    def _read_times(self, weeks: pa.Table, is_first: np.ndarray) -> None:
        """Days since the last and the first event that lies before each window's end."""
        row_R, seen_R = np.arange(len(weeks)), weeks["last_at"].is_valid().to_numpy()
        last_R = np.maximum.accumulate(np.where(seen_R, row_R, -1))
        last_at = pc.fill_null(weeks["last_at"], 0).to_numpy()[last_R]
        self._recency_R = (self._end_R - last_at) / _DAY_US
        starts = np.flatnonzero(is_first)
        first_of_user = np.minimum.reduceat(np.where(seen_R, row_R, len(row_R)), starts)
        first_R = np.repeat(first_of_user, np.diff([*starts, len(row_R)]))
        first_at = pc.fill_null(weeks["first_at"], 0).to_numpy()
        self._tenure_R = (self._end_R - first_at[np.minimum(first_R, len(row_R) - 1)]) / _DAY_US
        nothing_yet = last_R < self._first_R
        self._recency_R[nothing_yet] = self._tenure_R[nothing_yet] = np.nan

    def tiers(self) -> dict[str, pa.Array]:
        """How dear and how much the store's own brand what a user buys is, as categories."""
        spend, units, lines, own = (
            self._sums[name, _HALF_YEAR] for name in ("spend", "units", "lines", "private_lines")
        )
        fifth = np.floor(5 * np.minimum(_ratio(own, lines), 0.999))
        return {"price_tier": _log_bin(_ratio(2 * spend, units)),
                "brand_tier": _named(fifth, "{}/5")}  # fmt: skip

    def columns(self) -> dict[str, pa.Array]:
        """All others by name, marked by ``schema.AGGREGATE_PREFIX``."""
        return {AGGREGATE_PREFIX + name: column for name, column in self._columns()}

    def _columns(self) -> Iterator[tuple[str, pa.Array]]:
        recency, tenure, sums = self._recency_R, self._tenure_R, self._sums
        yield "recency_days", _number(recency)
        yield "tenure_days", _number(tenure)
        for name in TOTALS:
            if name not in _OF_TIERS:
                short = _SHORT_SPANS if name in ("baskets", "spend") else ()
                for span in (*short, *_SPANS):
                    yield f"{name}_{span}w", _number(sums[name, span])
        spend = {span: sums["spend", span] for span in (*_SHORT_SPANS, *_SPANS)}
        discount, baskets = sums["discount", _HALF_YEAR], sums["baskets", _HALF_YEAR]
        yield "basket_value", _number(_ratio(spend[_HALF_YEAR], baskets))
        yield "discount_share", _number(_ratio(discount, spend[_HALF_YEAR] + discount))
        yield "spend_trend", _number(_ratio(spend[4], spend[12]))
        yield "spend_change", _number(_ratio(spend[4], spend[8] - spend[4]))
        yield "overdue", _number(recency * baskets / np.minimum(tenure, 7 * _HALF_YEAR))
        bins = np.searchsorted([*_BINS], recency, side="right")
        yield "recency_bin", pa.array([*_BINS.values(), "long ago"]).take(pa.array(bins))
        yield "frequency_bin", _log_bin(sums["baskets", 12])
        yield "spend_bin", _log_bin(spend[12])


def _ratio(value: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Not a number where ``of`` is 0."""
    ratio: np.ndarray = np.divide(value, of, out=np.full(len(of), np.nan), where=of != 0)
    return ratio


def _number(values: np.ndarray) -> pa.Array:
    return pa.array(values, from_pandas=True)  # what is not a number is null


def _log_bin(values: np.ndarray) -> pa.Array:
    """Power-of-two bin as text; null and what is not positive have bins of their own."""
    power = np.floor(np.log2(values, out=np.full(len(values), -np.inf), where=~(values <= 0)))
    return _named(power, "2^{}")


def _named(whole_R: np.ndarray, pattern: str) -> pa.Array:
    """Whole numbers as text; minus infinity is "0" alone, and what is not a number is null."""
    distinct, at_R = np.unique(whole_R, return_inverse=True)
    texts = [pattern.format(int(each)) if np.isfinite(each) else "0" for each in distinct]
    names = pa.array(texts, mask=np.isnan(distinct), type=pa.string())
    return names.take(pa.array(at_R))
