"""The paper's pairs: a user's past and one long description of what the user does next (FOUND 4.1).

The five kinds of sentences about a user's future are strung together into one description; the
user's own description is the positive, everybody else's are the negatives (eq. 15).

The paper does not say how much a description lists. Here each kind is one sentence that names at
most ``max_items`` subjects, "etc." standing for the rest, and the number is what all of them
amount to. Which subjects are named is drawn anew at each step, so none is always left out. A
description longer than the text tower's limit is cut there, from the end.

Shapes: B samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from encoders import distributed, templates
from encoders.batch import Collate
from encoders.pairs import FactTable, PairBatch
from feature_repo.schema import FACT_KINDS as KINDS
from feature_repo.schema import TIMESTAMP

_BELOW = 1 - 1e-9  # "more than": the number stays below the one it is rounded from
_TOP_LEVEL = 1  # departments, and what has no level: they add up to all that was done


class Descriptions:
    """Descriptions of samples, worded from their facts.

    Args:
        table: facts of the samples; subjects that may be named.
        facts: all rows of ``schema.FACTS`` about them, named or not: what the numbers amount to.
        max_items: subjects named per sentence.
    """

    def __init__(self, table: FactTable, facts: pa.Table, *, max_items: int):
        self.table, self.max_items = table, max_items
        self._totals = _totals(facts)

    def __call__(self, samples_B: np.ndarray, rng: np.random.Generator) -> list[str]:
        """One description per sample."""
        position, key, size = self.table.of(samples_B)
        texts = []
        for b, sample in enumerate(samples_B):
            own = position == b
            texts.append(self._describe(int(sample), key[own], size[own], rng))
        return texts

    def _describe(
        self, sample: int, key: np.ndarray, size: np.ndarray, rng: np.random.Generator
    ) -> str:
        by_kind: dict[str, list[tuple[str, float]]] = {}
        for at in rng.permutation(len(key)):
            kind, subject = self.table.names[key[at]]
            by_kind.setdefault(kind, []).append((subject, float(size[at])))
        sentences = []
        for kind in KINDS:
            if kind not in by_kind:
                continue
            named = by_kind[kind]
            total = self._totals.get((*self.table.samples[sample], kind), max(s for _, s in named))
            sentences.append(
                templates.sentence(
                    kind, [subject for subject, _ in named],
                    num=templates.round_down(total * _BELOW), max_items=self.max_items,
                )
            )  # fmt: skip
        # Only a buyer can be without facts: who bought nothing has that for a fact.
        return " ".join(sentences) or templates.SOMETHING_ELSE


class DescriptionSampler:
    """Draws pair batches of users and their descriptions.

    Two users with the very same description (who bought nothing, say) fit it equally: each is
    the other's positive too, since the text cannot tell them apart.

    Args:
        rows: history row of each sample.
        tokenize: texts → token tensors of the text tower.
    """

    def __init__(
        self,
        collate: Collate,
        descriptions: Descriptions,
        rows: np.ndarray,
        tokenize: Callable[[list[str]], dict[str, Tensor]],
    ):
        self.collate, self.descriptions, self.rows = collate, descriptions, rows
        self.tokenize = tokenize

    def __call__(self, samples_B: np.ndarray, rng: np.random.Generator) -> PairBatch:
        """The pair batch of these samples. Collective when several workers train."""
        texts = self.descriptions(samples_B, rng)
        marks = torch.tensor([zlib.crc32(text.encode()) for text in texts])
        every = distributed.gather(marks)
        return PairBatch(
            users=self.collate(self.rows[samples_B]),
            tokens=self.tokenize(texts),
            label_BS=(every[:, None] == every[None, :]).to(torch.int8),
            weight_S=torch.ones(len(every)),
        )


def distinct_users(
    users: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:  # fmt: skip
    """Positions of ``size`` samples, no user twice while there are enough of them.

    A user's own description of another fortnight would be a false negative.

    Args:
        users: int64, the user of each sample.
    """
    order = rng.permutation(len(users))
    _, first = np.unique(users[order], return_index=True)
    own = order[np.sort(first)]
    chosen = own[:size]
    if len(chosen) == size:
        return chosen
    return np.concatenate([chosen, rng.choice(len(users), size - len(chosen))])


def _totals(facts: pa.Table) -> dict[tuple[str, int, str], float]:
    """(user, cut-off, kind) → all that was spent, or how often it was done."""
    top = facts.filter(pc.less_equal(facts["level"], _TOP_LEVEL))
    sums = top.group_by(["user_id", "cutoff", "kind"]).aggregate(
        [("amount", "sum"), ("count", "sum")]
    )
    cutoffs = sums["cutoff"].cast(TIMESTAMP).cast(pa.int64()).to_pylist()
    columns = (sums[name].to_pylist() for name in ("user_id", "kind", "amount_sum", "count_sum"))
    return {
        (user, cutoff, kind): float(count if templates.is_counted(kind) else amount or 0.0)
        for cutoff, (user, kind, amount, count) in zip(
            cutoffs, zip(*columns, strict=True), strict=True
        )
    }
