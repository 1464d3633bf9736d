"""Frames: the tables a training run reads, on disk, and as a history that batches are cut from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from encoders.history import History
from encoders.language_model import MINILM
from encoders.past import cut_history
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


def past(
    tables: dict[str, pa.Table], cache: Path, text_model: str = MINILM
) -> tuple[History, LineEncoder]:
    """Weekly rows as a history, and what reads its sentences; each text is embedded once and kept.

    Args:
        text_model: the text tower's language model, through which habits are read.
    """
    lines = LineEncoder(cache)
    sentences = lines if text_model == MINILM else LineEncoder(cache, model=text_model)
    cut = cut_history(tables, lines, sentences)
    sentences.save()
    return cut, sentences


def purchases(tables: dict[str, pa.Table], cache: Path) -> PurchaseHistory:
    """Weekly purchases as a history of tokens; each product's text is embedded once and kept."""
    lines = LineEncoder(cache)
    cut = PurchaseHistory(tables[PURCHASES_VIEW], lines)
    lines.save()
    return cut
