"""Columns of a profile table as numbers: vocabularies and scales, fitted once and kept.

Categories become codes (0 missing, 1 unknown, 2… by frequency); continuous values pass a signed
logarithm and are standardised. A missing value is a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MISSING, UNKNOWN = 0, 1
_ROUNDING = 1e-12  # the deviation of a constant may be a few last digits of its mean, not zero
_KEYS = ("user_id", "event_timestamp", "created")


@dataclass(frozen=True)
class TableColumns:
    """Fitted columns.

    Attributes:
        vocabularies: category column → its values, code 2 first.
        scales: continuous column → (mean, standard deviation) of its signed logarithm.
    """

    vocabularies: dict[str, list[str]]
    scales: dict[str, tuple[float, float]]

    @property
    def cardinalities(self) -> list[int]:
        """Number of codes per categorical column, missing and unknown included."""
        return [len(values) + 2 for values in self.vocabularies.values()]

    @cached_property
    def _value_sets(self) -> dict[str, pa.Array]:
        """Where a value stands is its code; null is found first of all."""
        return {
            name: pa.array([None, None, *values], pa.string())
            for name, values in self.vocabularies.items()
        }

    @classmethod
    def fit(
        cls, table: pa.Table, *, without_prefix: str | None = None, max_values: int = 256
    ) -> TableColumns:
        """Learn vocabularies and scales from ``table``.

        Args:
            table: profile rows; string columns are categories, the rest continuous.
            without_prefix: leave out the columns whose name starts so.
            max_values: the most frequent values kept per category; the rest become unknown.
        """
        vocabularies: dict[str, list[str]] = {}
        scales: dict[str, tuple[float, float]] = {}
        for name in table.column_names:
            if name in _KEYS or (without_prefix and name.startswith(without_prefix)):
                continue
            column = table[name]
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                vocabularies[name] = _most_frequent(column, max_values)
            else:
                value = _signed_log(column.to_numpy())
                if np.isnan(value).all():
                    continue
                mean, std = float(np.nanmean(value)), float(np.nanstd(value))
                if std <= _ROUNDING * abs(mean):
                    continue  # a constant says nothing
                scales[name] = (mean, std)
        return cls(vocabularies, scales)

    def encode(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Codes int64 [R, C], values float32 [R, F], missing bool [R, F].

        Raises:
            ValueError: when the table lacks a fitted column.
        """
        held = set(table.column_names)
        lacking = [n for n in (*self.vocabularies, *self.scales) if n not in held]
        if lacking:
            raise ValueError(
                f"profile table lacks columns {lacking}; the encoder was fitted on "
                f"{[*self.vocabularies, *self.scales]}: rebuild the features or retrain"
            )
        codes = [_codes(table[name], values) for name, values in self._value_sets.items()]
        raw = [_signed_log(table[name].to_numpy()) for name in self.scales]
        values = [
            (column - mean) / std
            for column, (mean, std) in zip(raw, self.scales.values(), strict=True)
        ]
        values_RF = _stack(values, len(table), np.float32)
        missing_RF = np.isnan(values_RF)
        return (
            _stack(codes, len(table), np.int64),
            np.where(missing_RF, 0.0, np.clip(values_RF, -5, 5)).astype(np.float32),
            missing_RF,
        )


def _most_frequent(column: pa.ChunkedArray, max_values: int) -> list[str]:
    counts = {
        row["values"]: row["counts"]
        for row in pc.value_counts(column).to_pylist()
        if row["values"] is not None
    }
    return sorted(counts, key=lambda value: (-counts[value], value))[:max_values]


def _codes(column: pa.ChunkedArray, value_set: pa.Array) -> np.ndarray:
    return pc.fill_null(pc.index_in(column.cast(pa.string()), value_set), UNKNOWN).to_numpy()


def _signed_log(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return np.sign(values) * np.log1p(np.abs(values))


def _stack(columns: Sequence[np.ndarray], rows: int, dtype: type) -> np.ndarray:
    return np.stack(columns, 1).astype(dtype) if columns else np.zeros((rows, 0), dtype)
