"""Weekly rows → the vectors of a model, the one way in batch embedding, evaluation and serving.

    encode = PastEncoder(model, workspace.cache)
    vectors_VD = encode(tables, user_ids)          # weekly rows of these users, by view

Shapes: V users (or variants of one), D width of fused vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from encoders.alignment import FoundModel
from encoders.batch import Collate
from encoders.behaviour import BehaviourConfig
from encoders.history import History
from encoders.language_model import MINILM, load_language_model
from encoders.text import LineEncoder

BEHAVIOUR_VIEW = "behaviour_weekly"
PROFILE_VIEW = "profile_weekly"
HABITS_VIEW = "habits_weekly"
SEARCH_VIEW = "search_weekly"
VIEWS = (BEHAVIOUR_VIEW, PROFILE_VIEW, HABITS_VIEW, SEARCH_VIEW)
"""The weekly views that an alignment model reads, whether or not a workspace has them all."""
_BATCH = 512


class PastEncoder:
    """Fused vectors from weekly rows, float32 [V, D], at the last window that the rows hold.

    Args:
        lines: directory where vectors of lines are kept, or None.
    """

    def __init__(self, model: FoundModel, lines: Path | None):
        self._model = model
        self._lines = LineEncoder(lines)
        self._sentences = LineEncoder(lines, model=model.config.text.model)

    def __call__(
        self, tables: Mapping[str, pa.Table], ids: Sequence[str], *, joint_only: bool = False
    ) -> np.ndarray:
        """Vectors of users by their weekly rows.

        Args:
            joint_only: leave out the assortment, which no sentence reads.
        """
        history = cut_history(tables, self._lines, self._sentences)
        last = int(max(history.times_R))
        rows = history.rows(ids, [last] * len(ids))
        collate = collate_for(self._model, history, joint_only=joint_only)
        return encode_rows(self._model, collate, rows)["fused"]


def num_windows(model: FoundModel) -> int:
    """How many weekly windows of the past the model reads."""
    config = model.config
    longer = [part.windows for part in (config.habits, config.assortment) if part is not None]
    return max([config.windows, *longer])


def cut_history(
    tables: Mapping[str, pa.Table], lines: LineEncoder, sentences: LineEncoder | None = None
) -> History:
    """Weekly rows as a history that batches are cut from.

    Args:
        sentences: the text tower's language model, through which habits are read.
    """
    rows = tables[BEHAVIOUR_VIEW], tables[PROFILE_VIEW], tables.get(SEARCH_VIEW)
    cut = History(*rows, lines, tables.get(HABITS_VIEW), sentences or lines)
    lines.save()
    return cut


def collate_for(model: FoundModel, history: History, *, joint_only: bool = False) -> Collate:
    """The collate that fits a model: its windows, columns and search tokens.

    Args:
        joint_only: leave out the assortment, which neither losses nor sentences read.
    """
    config = model.config
    return Collate(
        history,
        windows=config.windows,
        table=None if config.tabular is None else config.tabular.columns,
        search_tokens=None if config.search is None else word_pieces(),
        max_tokens=64 if config.search is None else config.search.max_tokens,
        habit_windows=0 if config.habits is None else config.habits.windows,
        assortment=None if joint_only else config.assortment,
        **window_text(config.behaviour),
    )


def window_text(config: BehaviourConfig | None) -> dict[str, Any]:
    """How a collate reads windows as text, where the behaviour encoder wants that."""
    if config is None or config.window_encoder != "albert":
        return {}
    return {"line_tokens": word_pieces(), "window_tokens": config.max_tokens}


@cache
def word_pieces() -> Callable[[str], list[int]]:
    """Word pieces of one line or search text, closed by a separator."""
    tokenizer, _ = load_language_model(MINILM)

    def tokenize(text: str) -> list[int]:
        pieces: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*pieces, tokenizer.sep_token_id]

    return tokenize


@torch.inference_mode()
def encode_rows(model: FoundModel, collate: Collate, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Vectors by kind of some history rows, float32 [n, dim]."""
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(rows), _BATCH):
        batch = collate(rows[start : start + _BATCH])
        vectors = model.modalities(batch)
        for kind, vector in {**vectors, "fused": model.fuse(vectors, batch)}.items():
            parts.setdefault(kind, []).append(vector.float().numpy())
    return {kind: np.concatenate(pieces) for kind, pieces in parts.items()}
