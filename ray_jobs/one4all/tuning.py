"""ShopperBERT as an encoder that a task may tune further (One4all Table 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import duckdb
from torch import Tensor, nn

from encoders import checkpoint
from encoders.purchases import PurchaseCollate, PurchaseHistory
from encoders.shopper_bert import ShopperBert
from encoders.text import LineEncoder
from feature_repo.purchases import purchases_weekly


class PurchaseEncoder(nn.Module):
    """Rows of users → vectors [B, U], from their purchases; gradients reach the whole encoder.

    Args:
        length: the latest purchases that it reads, as far as whole stretches go, one at least.
    """

    def __init__(
        self, model: ShopperBert, collate: PurchaseCollate, users: Sequence[str], *, length: int
    ):
        super().__init__()
        self.model = model
        self._collate, self._users = collate, users
        config = model.config
        stretches = max(1, min(config.stretches, length // config.length))
        self._read = {**config.read, "stretches": stretches}

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self.model.width)

    @property
    def events(self) -> int:
        """How many of a user's latest purchases it reads."""
        return self._read["length"] * self._read["stretches"]

    def forward(self, users_B: Tensor) -> Tensor:
        """The vectors that publishing would write, while nothing is tuned yet and all is read."""
        some = [self._users[row] for row in users_B.tolist()]
        vectors_BU: Tensor = self.model(self._collate.latest(some, **self._read))
        return vectors_BU


def tunable(
    directory: Path, con: duckdb.DuckDBPyConnection, as_of: datetime, users: Sequence[str],
    lines: LineEncoder, *, length: int,
) -> Callable[[], PurchaseEncoder]:  # fmt: skip
    """Makes a fresh copy of a checkpoint's encoder at each call; purchases are read once.

    Args:
        users: whose rows it will be asked for, in that order.
        length: the latest purchases that it reads.
    """
    history = PurchaseHistory(purchases_weekly(con, as_of), lines)

    def fresh() -> PurchaseEncoder:
        model, _ = checkpoint.load(directory, expect="shopper_bert")
        collate = PurchaseCollate(history, model.config.vocabularies)
        return PurchaseEncoder(model, collate, users, length=length)

    return fresh
