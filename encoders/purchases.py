"""Purchases as tokens: the log of many users, and the batch cut out of it (One4all section 3).

A token is one product on one day. It says the product's four categories and text, and five parts
of its date; nine fields in all, text aside. A category may be missing (""), a field may have one
value in a whole data set (the year, an hour that a source lacks, a fourth level that no taxonomy
has): such a field is like any other, with a vocabulary of one value.

Shapes: U users, R stretches of a log, T places of a stretch (oldest first), n tokens of a history,
V products, E width of a text vector, K categories, D parts of a date, F = K + D fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

CATEGORIES = ("category_1", "category_2", "category_3", "category_4")
DATES = ("year", "month", "day", "weekday", "hour")
FIELDS = (*CATEGORIES, *DATES)

UNKNOWN = 0
"""Code of a value that was not there in training; the values that were have 1, 2, …"""


@dataclass(frozen=True)
class PurchaseBatch:
    """Stretches of purchase logs.

    >>> batch = example_batch()
    >>> batch.product_RT.shape, batch.codes_RTF.shape, int(batch.filled_RT.sum())
    (torch.Size([2, 3]), torch.Size([2, 3, 9]), 5)
    """

    texts_VE: Tensor  # float32, frozen sentence vectors; 0 where a product has no text
    categories_VK: Tensor  # int64 codes
    product_RT: Tensor  # int64, rows of texts_VE
    dates_RTD: Tensor  # int64 codes
    visit_RT: Tensor  # int64, the same for purchases of one user at one moment
    filled_RT: Tensor  # bool
    owner_R: Tensor  # int64, which user a stretch is of
    user_U: Tensor  # int64 [U], the users in order: 0 … U - 1

    def __len__(self) -> int:
        return len(self.user_U)

    @property
    def codes_RTF(self) -> Tensor:
        """All nine fields of every token."""
        return torch.cat([self.categories_VK[self.product_RT], self.dates_RTD], -1)

    def to(self, device: torch.device | str) -> PurchaseBatch:
        """The same batch on another device."""
        return PurchaseBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class PurchaseHistory:
    """Purchases of many users, oldest first.

    Args:
        weekly: rows of ``schema.PURCHASES_WEEKLY``.
        text_vectors: embeds distinct texts, ``list[str] -> float32 [n, E]``.
    """

    def __init__(
        self, weekly: pa.Table, text_vectors: Callable[[Sequence[str]], np.ndarray]
    ) -> None:
        flat = pc.list_flatten(weekly["products"])
        named = sorted(pc.unique(flat).to_pylist())
        product_n = pc.index_in(flat, value_set=pa.array(named, pa.string())).to_numpy()
        length = pc.fill_null(pc.list_value_length(weekly["products"]), 0).to_numpy()
        self.user_ids: list[str] = sorted(pc.unique(weekly["user_id"]).to_pylist())
        row_user = pc.index_in(
            weekly["user_id"], value_set=pa.array(self.user_ids, pa.string())
        ).to_numpy()
        user_n = np.repeat(row_user, length)
        times_n = pc.list_flatten(weekly["bought_at"]).to_numpy()
        order = np.lexsort((product_n, times_n, user_n))
        user_n, self.times_n = user_n[order], times_n[order].astype(np.int64)
        self.product_n = product_n[order].astype(np.int64)
        self.start_U = np.searchsorted(user_n, np.arange(len(self.user_ids)))
        self.length_U = np.bincount(user_n, minlength=len(self.user_ids))
        moved = (np.diff(user_n) != 0) | (np.diff(self.times_n) != 0)
        self.visit_n = np.cumsum(np.r_[False, moved]) if len(user_n) else user_n
        self._place = {user: place for place, user in enumerate(self.user_ids)}

        products = [json.loads(text) for text in named]
        self.categories = [tuple(product["categories"]) for product in products]
        self.texts = [product["text"] for product in products]
        self.texts_VE = text_vectors(self.texts or [""])[: len(self.texts)].copy()
        self.texts_VE[[not text for text in self.texts]] = 0.0

    def latest(self, user_id: str, *, length: int, stretches: int) -> list[np.ndarray]:
        """The latest ``stretches`` runs of at most ``length`` tokens; none without purchases.

        Every run but the oldest is full. Each is an array of positions in the history.
        """
        place = self._place.get(user_id)
        if place is None:
            return []
        begin, end = int(self.start_U[place]), int(self.start_U[place] + self.length_U[place])
        ends = range(end, max(begin, end - length * stretches), -length)
        return [np.arange(max(begin, last - length), last) for last in ends]

    def values(self, field: str) -> np.ndarray:
        """A field of every product (category) or token (date)."""
        if field in CATEGORIES:
            level = CATEGORIES.index(field)
            named = [c[level] if level < len(c) else "" for c in self.categories]
            return np.array(named, object)
        return _date_part(self.times_n, field)


def fit_vocabularies(history: PurchaseHistory) -> dict[str, list]:
    """The values of each field that occur in a history, sorted."""
    used = np.unique(history.product_n)
    return {
        name: sorted(set(values[used] if name in CATEGORIES else np.unique(values).tolist()))
        for name in FIELDS
        for values in [history.values(name)]
    }


class PurchaseCollate:
    """Cuts batches out of a history: the one collate of training, batch and online embedding.

    Args:
        vocabularies: field → its known values, as :func:`fit_vocabularies` gives them.
    """

    def __init__(self, history: PurchaseHistory, vocabularies: Mapping[str, Sequence]) -> None:
        self.history = history
        coded = {name: _codes(history.values(name), vocabularies[name]) for name in FIELDS}
        self._categories_VK = np.stack([coded[name] for name in CATEGORIES], 1)
        self._dates_nD = np.stack([coded[name] for name in DATES], 1)

    def __call__(
        self, stretches: Sequence[np.ndarray], owners: Sequence[int], num_users: int
    ) -> PurchaseBatch:
        """The batch of these stretches (positions in the history); a user may have none."""
        longest = max([1, *map(len, stretches)])
        filled_RT = np.zeros((len(stretches), longest), bool)
        for row, stretch in enumerate(stretches):
            filled_RT[row, : len(stretch)] = True
        tokens = np.concatenate([*stretches, np.zeros(0, np.int64)]).astype(np.int64)
        used, product = np.unique(self.history.product_n[tokens], return_inverse=True)

        def laid(values: np.ndarray) -> Tensor:
            out = np.zeros((*filled_RT.shape, *values.shape[1:]), np.int64)
            out[filled_RT] = values
            return torch.from_numpy(out)

        if not len(used):  # nobody here ever bought anything: one product that nothing refers to
            texts_VE = np.zeros((1, self.history.texts_VE.shape[1]), np.float32)
            categories_VK = np.zeros((1, len(CATEGORIES)), np.int64)
        else:
            texts_VE, categories_VK = self.history.texts_VE[used], self._categories_VK[used]
        return PurchaseBatch(
            texts_VE=torch.from_numpy(texts_VE),
            categories_VK=torch.from_numpy(categories_VK),
            product_RT=laid(product),
            dates_RTD=laid(self._dates_nD[tokens]),
            visit_RT=laid(self.history.visit_n[tokens]),
            filled_RT=torch.from_numpy(filled_RT),
            owner_R=torch.tensor(owners, dtype=torch.int64),
            user_U=torch.arange(num_users),
        )

    def latest(self, users: Sequence[str], *, length: int, stretches: int) -> PurchaseBatch:
        """The latest purchases of some users, at most ``stretches`` of ``length`` each."""
        logs = [self.history.latest(user, length=length, stretches=stretches) for user in users]
        owners = [place for place, log in enumerate(logs) for _ in log]
        return self([stretch for log in logs for stretch in log], owners, len(users))


def _codes(values: np.ndarray, known: Sequence) -> np.ndarray:
    """Position in ``known``, from 1; :data:`UNKNOWN` for the others."""
    code = {value: place for place, value in enumerate(known, 1)}
    distinct, inverse = np.unique(values, return_inverse=True)
    return np.array([code.get(value, UNKNOWN) for value in distinct.tolist()], np.int64)[inverse]


def _date_part(times_n: np.ndarray, part: str) -> np.ndarray:
    """One part of each moment, in UTC; weekdays are counted from Monday, 0."""
    at = times_n.astype("datetime64[us]")
    day = at.astype("datetime64[D]")
    month = day.astype("datetime64[M]")
    if part == "year":
        return day.astype("datetime64[Y]").astype(np.int64) + 1970
    if part == "month":
        return month.astype(np.int64) % 12 + 1
    if part == "day":
        return (day - month).astype(np.int64) + 1
    if part == "weekday":
        return (day.astype(np.int64) + 3) % 7  # 1970 began on a Thursday
    return (at - day).astype("timedelta64[h]").astype(np.int64)


def example_batch(*, width: int = 8) -> PurchaseBatch:
    """Two users with three and two purchases of two products, for examples and tests."""
    day = 86_400_000_000
    named = ['{"text":"milk","categories":["food","dairy"]}', '{"text":"soap","categories":[]}']
    weekly = pa.table(
        {
            "user_id": ["a", "b"],
            "products": [[named[0], named[1], named[0]], [named[1], named[0]]],
            "bought_at": [[0, 0, 9 * day], [3 * day, 4 * day]],
        }
    )
    history = PurchaseHistory(weekly, lambda texts: np.ones((len(texts), width), np.float32))
    collate = PurchaseCollate(history, fit_vocabularies(history))
    stretches = [history.latest(user, length=5, stretches=1)[0] for user in "ab"]
    return collate(stretches, [0, 1], 2)
