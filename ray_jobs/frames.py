"""Frames: the tables a training run reads, on disk, and as a history that batches are cut from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from encoders.purchases import PurchaseHistory
from encoders.text import LineEncoder

PURCHASES_VIEW = "purchases_weekly"


def save(tables: dict[str, pa.Table], directory: Path) -> None:
    """Write frames as Parquet, one file per table."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, directory / f"{name}.parquet", coerce_timestamps="us")


def read(directory: Path) -> dict[str, pa.Table]:
    """What :func:`save` wrote."""
    return {path.stem: pq.read_table(path) for path in sorted(directory.glob("*.parquet"))}


def purchases(tables: dict[str, pa.Table], lines: LineEncoder) -> PurchaseHistory:
    """Weekly purchases as a history of tokens; each product's text is embedded once and kept."""
    cut = PurchaseHistory(tables[PURCHASES_VIEW], lines)
    lines.save()
    return cut
