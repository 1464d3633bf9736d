"""Assortment: what the baskets of a user are made of, down to the finest lines.

Sentences ask what a user will do, and the joint space is shaped by what they name. Who a user is,
a household with children, say, shows in the fine make-up of the baskets, which no sentence names.
So the fused vector carries a last block beside the joint space: latent semantic analysis
(tf-idf, truncated SVD) of the lines and subjects of a year. Queries hold zeros there, so no score
changes by it; a model on frozen vectors reads it, and so can seed users. Not from FOUND; what it
adds is an ablation (docs/decisions/best-preset.md).

Shapes: B users, n pairs of user and term, V terms, K coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.lists import Lists

MAX_TERMS = 20_000
_MIN_USERS = 5  # a term of fewer says nothing about the others
_ITERATIONS = 4  # of the randomised decomposition

TermLists = Mapping[str, tuple[Lists, Sequence[str]]]
"""Lists of weekly rows by name, and the texts that their ids stand for."""


@dataclass(frozen=True)
class AssortmentConfig:
    """Size of the block, and the terms that it was fitted on."""

    dim: int = 96
    windows: int = 52  # weeks of the past
    ratio: float = 1.0  # variance of the block against that of the joint space
    terms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))  # a list when read from JSON

    def fitted(self, lists: TermLists, rows_BW: np.ndarray) -> AssortmentConfig | None:
        """With the terms that enough users have, at most :data:`MAX_TERMS`; None without any."""
        counts = AssortmentCounts(lists)
        users_V = torch.bincount(counts(rows_BW).terms, minlength=len(counts.terms)).tolist()
        ranked = sorted(zip([-n for n in users_V], counts.terms, strict=True))
        kept = [term for num, term in ranked[:MAX_TERMS] if -num >= _MIN_USERS]
        return replace(self, terms=tuple(sorted(kept))) if kept else None


@dataclass(frozen=True)
class AssortmentBatch:
    """How often each of B users had each term: user b has ``offsets[b]`` to ``offsets[b + 1]``."""

    terms: Tensor  # int64 [n], positions in the config's terms
    offsets: Tensor  # int64 [B]
    owner: Tensor  # int64 [n]
    counts: Tensor  # float32 [n]

    def to(self, device: torch.device | str) -> AssortmentBatch:
        """The same batch on another device."""
        return AssortmentBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


class AssortmentCounts:
    """Counts terms in weekly rows.

    Args:
        lists: what is counted. A term is a text with the list's name before it: a subject may
            be called like a line.
        terms: those that are counted; all of them if None.
    """

    def __init__(
        self,
        lists: TermLists,
        terms: Sequence[str] | None = None,
    ):
        named = {name: [f"{name}: {text}" for text in texts] for name, (_, texts) in lists.items()}
        self.terms = tuple(sorted(set().union(*named.values())) if terms is None else terms)
        place = _places(self.terms)
        self._lists = [
            (lists[name][0], np.array([place.get(term, -1) for term in names], np.int64))
            for name, names in named.items()
        ]

    def __call__(self, rows_BW: np.ndarray) -> AssortmentBatch:
        """Counts over the rows of each user; row -1 is empty."""
        B, W = rows_BW.shape
        keys, weights = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
        for lists, place in self._lists:
            ids, _, weight, length_BW = lists.cut(rows_BW)
            owner = np.repeat(np.arange(B * W), length_BW.reshape(-1)) // W
            term = place[ids]
            known = term >= 0
            keys.append((owner * len(self.terms) + term)[known])
            weights.append(weight[known])
        pairs, where = np.unique(np.concatenate(keys), return_inverse=True)
        counts = np.bincount(where, np.concatenate(weights), len(pairs))
        owner, term = np.divmod(pairs, max(len(self.terms), 1))
        return AssortmentBatch(
            terms=torch.from_numpy(term),
            offsets=torch.from_numpy(np.searchsorted(owner, np.arange(B))),
            owner=torch.from_numpy(owner),
            counts=torch.from_numpy(counts.astype(np.float32)),
        )


@lru_cache(maxsize=4)
def _places(terms: tuple[str, ...]) -> dict[str, int]:
    """Where each term stands: the same thousands for every user who comes alone."""
    return {term: position for position, term in enumerate(terms)}


class Assortment(nn.Module):
    """Counts of terms → K coordinates; 0 for a user without any."""

    def __init__(self, config: AssortmentConfig):
        super().__init__()
        self.config = config
        V, K = len(config.terms), config.dim
        self.rarity_V: Tensor
        self.axes_VK: Tensor
        self.mean_K: Tensor
        self.scale: Tensor
        self.register_buffer("rarity_V", torch.zeros(V))
        self.register_buffer("axes_VK", torch.zeros(V, K))
        self.register_buffer("mean_K", torch.zeros(K))
        self.register_buffer("scale", torch.ones(()))

    @torch.no_grad()
    def fit(self, batch: AssortmentBatch) -> None:
        """Learn rarity of the terms and the axes of the block from many users, once.

        Axes beyond the rank of the data stay 0.
        """
        B, V = len(batch.offsets), len(self.config.terms)
        users_V = torch.bincount(batch.terms, minlength=V).float()
        self.rarity_V.copy_(torch.log(B / users_V.clamp(min=1)))
        weight_BV = torch.sparse_coo_tensor(
            torch.stack([batch.owner, batch.terms]),
            self._weights(batch),
            (B, V),
            check_invariants=False,
        )
        rank = min(self.config.dim, B, V)
        spare = min(8, min(B, V) - rank)
        _, _, axes = torch.svd_lowrank(weight_BV, q=rank + spare, niter=_ITERATIONS)
        self.axes_VK[:, :rank] = axes[:, :rank]
        self.mean_K.copy_(self._coordinates(batch).mean(0))

    @torch.no_grad()
    def match(self, joint_BD: Tensor, batch: AssortmentBatch) -> None:
        """Give the block ``ratio`` times the variance that users have in the joint space."""
        self.scale.fill_(1.0)
        own = self(batch).var(0).sum().clamp(min=1e-12)
        self.scale.copy_((self.config.ratio * joint_BD.var(0).sum() / own).sqrt())

    def forward(self, batch: AssortmentBatch) -> Tensor:
        """The users' coordinates, [B, K]."""
        has_B = torch.bincount(batch.owner, minlength=len(batch.offsets)) > 0
        centred_BK = self._coordinates(batch) - self.mean_K
        return centred_BK * has_B[:, None] * self.scale

    def _coordinates(self, batch: AssortmentBatch) -> Tensor:
        return functional.embedding_bag(
            batch.terms, self.axes_VK, batch.offsets, mode="sum",
            per_sample_weights=self._weights(batch),
        )  # fmt: skip

    def _weights(self, batch: AssortmentBatch) -> Tensor:
        """tf-idf of each pair, of unit length per user, [n]."""
        weight_n = torch.log1p(batch.counts) * self.rarity_V[batch.terms]
        length_B = torch.zeros(len(batch.offsets), device=weight_n.device)
        length_B = length_B.index_add(0, batch.owner, weight_n.square()).sqrt()
        return weight_n / length_B.clamp(min=1e-9)[batch.owner]
