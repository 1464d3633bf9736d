"""Training of downstream models: One4all section 4.2.2, for every model alike.

Adam without weight decay, batches of 256, a rate that decays by 0.995 an epoch, the best of three
rates by validation, early stopping on validation. Which users train, validate and test is told by
:class:`Split`; what is learnt, by an objective: :class:`Binary` (yes or no of each user) or
:class:`Recommendation` (which items each user takes).

    found = fit(objective, build, inputs, split)
    scores = predict(found.model, inputs, rows)      # float32 [rows, 1 or items]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from encoders.transfer import Build, Inputs, Recommender
from feature_repo.errors import InputError
from ray_jobs import metrics
from ray_jobs.precision import autocast

_CPU = torch.device("cpu")
_SHARES = 5
_ITEM_DIM = 64
_PAIRS = 8


@dataclass(frozen=True)
class Fitting:
    """How every downstream model is trained; the paper's values but for when to stop."""

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    batch_size: int = 256
    decay: float = 0.995  # of the learning rate, each epoch
    epochs: int = 12  # at most
    patience: int = 2  # epochs without a better validation
    least_steps: int = 4  # of an epoch: few users are gone through more than once
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True)
class Split:
    """Rows of users that train, validate and test; nobody is in two of them."""

    train: np.ndarray  # int64
    valid: np.ndarray
    test: np.ndarray

    @classmethod
    def draw(cls, groups: np.ndarray, repeat: int) -> Split:
        """Three fifths train, one validates, one tests.

        Each five repeats share a shuffle and test every user once, so that few repeats already
        test many users.

        Args:
            groups: [N]; each group, e.g. a label, is spread evenly.
        """
        rng = np.random.default_rng([repeat // _SHARES, len(groups)])
        fifth = np.empty(len(groups), np.int64)
        dealt = 0
        for group in np.unique(groups):
            rows = rng.permutation(np.flatnonzero(groups == group))
            fifth[rows] = (dealt + np.arange(len(rows))) % _SHARES
            dealt += len(rows)
        test = repeat % _SHARES
        valid = (test + 1) % _SHARES
        train = np.flatnonzero((fifth != test) & (fifth != valid))
        return cls(train, np.flatnonzero(fifth == valid), np.flatnonzero(fifth == test))


class Objective(Protocol):
    """What a model learns, and how well it did."""

    def model(self, build: Build, train: np.ndarray) -> nn.Module:
        """A fresh model whose forward gives logits; ``train`` are the rows it may know."""
        ...

    def loss(self, model: nn.Module, inputs: Inputs, rows: np.ndarray, seed: int) -> Tensor:
        """Scalar, of the users in ``rows``, whose ``inputs`` are given."""
        ...

    def quality(self, logits: np.ndarray, rows: np.ndarray) -> float:
        """Higher is better: what stops training and chooses the rate."""
        ...


@dataclass(frozen=True)
class Binary:
    """Yes or no of each user: binary cross-entropy, validated by AUROC."""

    labels_N: np.ndarray  # bool

    def model(self, build: Build, train: np.ndarray) -> nn.Module:
        return build(1)

    def loss(self, model: nn.Module, inputs: Inputs, rows: np.ndarray, seed: int) -> Tensor:
        wanted_B = torch.from_numpy(self.labels_N[rows].astype(np.float32))
        logits_B = model(inputs).squeeze(1).float()
        return nn.functional.binary_cross_entropy_with_logits(logits_B, wanted_B)

    def quality(self, logits: np.ndarray, rows: np.ndarray) -> float:
        return metrics.auc(logits[:, 0], self.labels_N[rows])


@dataclass(frozen=True)
class Recommendation:
    """Which items each user takes: pairs of user and item, validated by NDCG over all items.

    The paper's batch is 256 pairs; ours 256 users with eight of each one's items, drawn with
    repetition, since the user's side is what costs. As many pairs with a random item are negative.
    A thousand users are too few to learn from pairs what everybody likes: every model alike adds
    the items' popularity among the users that train.
    """

    taken_NM: np.ndarray  # bool, users × items
    texts_ME: Tensor  # frozen sentence vectors of the items
    known_NM: np.ndarray | None = None  # bool, items of the past that cannot be taken again
    popular: bool = True  # models start from the popularity of items; the paper's start from 0

    def model(self, build: Build, train: np.ndarray) -> nn.Module:
        prior_M = self.popularity(train) if self.popular else None
        return Recommender(build(_ITEM_DIM), self.texts_ME, dim=_ITEM_DIM, prior_M=prior_M)

    def popularity(self, train: np.ndarray) -> Tensor:
        """How much more often than a random item each is taken: the logit that knows nobody."""
        takers_M = self.taken_NM[train].sum(0) + 1.0
        return torch.from_numpy(np.log(takers_M / takers_M.mean()).astype(np.float32))

    def loss(self, model: nn.Module, inputs: Inputs, rows: np.ndarray, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        taken_BM = self.taken_NM[rows]
        good_BP = np.stack([rng.choice(np.flatnonzero(taken), _PAIRS) for taken in taken_BM])
        random_BP = rng.integers(0, taken_BM.shape[1], good_BP.shape)
        items_BP = np.concatenate([good_BP, random_BP], 1)
        wanted_BP = np.take_along_axis(taken_BM, items_BP, 1).astype(np.float32)
        logits_BP = model(inputs).float().gather(1, torch.from_numpy(items_BP))
        return nn.functional.binary_cross_entropy_with_logits(
            logits_BP, torch.from_numpy(wanted_BP)
        )

    def quality(self, logits: np.ndarray, rows: np.ndarray) -> float:
        _, places = self.places(logits, rows)
        return metrics.mean(places.ndcg(logits.shape[1]))  # without a cut: MRR hangs on few users

    def places(
        self, logits: np.ndarray, rows: np.ndarray, *, among: int | None = None, seed: int = 0
    ) -> tuple[np.ndarray, metrics.Places]:
        """:func:`item_places` of these users' items."""
        known = None if self.known_NM is None else self.known_NM[rows]
        return item_places(logits, self.taken_NM[rows], known, among=among, seed=seed)


def item_places(
    logits_BM: np.ndarray, taken_BM: np.ndarray, known_BM: np.ndarray | None = None, *,
    among: int | None = None, seed: int = 0,
) -> tuple[np.ndarray, metrics.Places]:  # fmt: skip
    """Row of the user and place of every taken item among items the user did not take.

    Args:
        known_BM: items that are no candidates.
        among: how many of the others are drawn for each user; default all.
    """
    user_P, item_P = np.nonzero(taken_BM)
    barred_BM = taken_BM if known_BM is None else taken_BM | known_BM
    others_BM = np.where(barred_BM, np.nan, logits_BM)
    if among is not None:
        order_BM = np.random.default_rng(seed).random(taken_BM.shape)
        order_BM[barred_BM] = 2.0  # after all that can be drawn
        drawn_BA = np.argsort(order_BM, 1)[:, :among]
        others_BM = np.take_along_axis(others_BM, drawn_BA, 1)
    return user_P, metrics.Places.among(logits_BM[user_P, item_P], others_BM[user_P])


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came about."""

    model: nn.Module
    quality: float  # on validation
    learning_rate: float
    epochs: int
    tried: dict[str, float] = field(default_factory=dict)  # rate → quality on validation


def fit(
    objective: Objective, build: Build, inputs: Inputs, split: Split,
    settings: Fitting | None = None, *, seed: int = 0,
) -> Fitted:  # fmt: skip
    """The best of the learning rates by validation, each stopped at its best epoch.

    Raises:
        InputError: no user trains, or nothing on validation tells good from bad.
    """
    settings = settings or Fitting()
    if not len(split.train):
        raise InputError("split: expected users to train on, got none")
    found = [
        _fit_once(objective, build, inputs, split, settings, rate, seed)
        for rate in settings.learning_rates
    ]
    best = max(found, key=lambda each: each.quality)
    tried = {f"{each.learning_rate:g}": each.quality for each in found}
    return Fitted(best.model, best.quality, best.learning_rate, best.epochs, tried)


def _fit_once(
    objective: Objective, build: Build, inputs: Inputs, split: Split, settings: Fitting,
    rate: float, seed: int,
) -> Fitted:  # fmt: skip
    torch.manual_seed(seed)
    model = objective.model(build, split.train)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), rate, betas=(0.9, 0.999))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, settings.decay)
    best, best_epoch, state = -np.inf, 0, _copy(model)
    for epoch in range(1, settings.epochs + 1):
        model.train()
        for rows in _epoch(split.train, settings, rng):
            with autocast(settings.precision, _CPU):
                part = inputs.rows(torch.from_numpy(rows))
                loss = objective.loss(model, part, rows, int(rng.integers(2**31)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        quality = objective.quality(
            predict(model, inputs, split.valid, precision=settings.precision), split.valid
        )
        if np.isnan(quality):
            raise InputError(
                "split: expected positives and negatives among the users that validate, got one "
                f"kind among {len(split.valid)}"
            )
        if quality > best:
            best, best_epoch, state = quality, epoch, _copy(model)
        elif epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(state)
    return Fitted(model.eval(), float(best), rate, best_epoch)


@torch.no_grad()
def predict(
    model: nn.Module, inputs: Inputs, rows: np.ndarray, *, batch_size: int = 256,
    precision: str = "float32",
) -> np.ndarray:  # fmt: skip
    """Logits of the users in ``rows``, float32 [rows, outputs]."""
    model.eval()
    with autocast(precision, _CPU):
        parts = [
            model(inputs.rows(torch.from_numpy(part))).float().numpy()
            for part in _batches(rows, batch_size)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def scaled(vectors_NU: np.ndarray) -> Tensor:
    """Embeddings as input: centred and divided by one number, as in the linear probes."""
    centred = vectors_NU - vectors_NU.mean(0)
    return torch.from_numpy((centred / (centred.std() or 1.0)).astype(np.float32))


def _epoch(train: np.ndarray, settings: Fitting, rng: np.random.Generator) -> list[np.ndarray]:
    """All users that train in random order, again and again until there are enough steps."""
    steps: list[np.ndarray] = []
    while len(steps) < settings.least_steps:
        steps += _batches(rng.permutation(train), settings.batch_size)
    return steps


def _batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
