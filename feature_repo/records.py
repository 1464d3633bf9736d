"""Rows as JSON texts, for people to read and repair."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa


def to_json(record: dict[str, Any]) -> str:
    """A row as strict JSON: times in ISO format, non-finite numbers and bytes as text."""
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False)


def json_records(tables: Sequence[pa.Table], chosen: np.ndarray[Any, Any]) -> list[str]:
    """The chosen rows (ascending positions) of tables that follow one another, as JSON."""
    texts, start = [], 0
    for table in tables:
        inside = chosen[(chosen >= start) & (chosen < start + table.num_rows)] - start
        texts += [to_json(row) for row in table.take(pa.array(inside)).to_pylist()]
        start += table.num_rows
    return texts


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, date):  # datetimes too
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
