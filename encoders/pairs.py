"""User–text pairs: pasts joined with sentences about the futures (FOUND eq. 4).

A sample is a user at a cut-off. Its facts say what the user did in the horizon that follows. A
step draws samples and, from their facts, a set of sentences with a single intent each; whom a
sentence fits is known exactly, so one sentence has several positives and no false negatives.

Shapes: B samples, S sentences, K distinct facts of the data set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from encoders import distributed, templates
from encoders.batch import Collate, UserBatch
from feature_repo.schema import FACT_KINDS as KINDS
from feature_repo.schema import TIMESTAMP

_BELOW = 1 - 1e-9
_NOTHING_BOUGHT = ("purchase", templates.NOTHING)


@dataclass(frozen=True)
class PairBatch:
    """Users, sentences, and who fits what (over all workers)."""

    users: UserBatch
    tokens: dict[str, Tensor]
    label_BS: Tensor  # int8 [world * B, world * S]: 1 fits, 0 does not, -1 unknown
    weight_S: Tensor  # float32 [world * S]: how much each sentence counts

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on another device."""
        tokens = {name: tensor.to(device) for name, tensor in self.tokens.items()}
        return PairBatch(
            self.users.to(device), tokens, self.label_BS.to(device), self.weight_S.to(device)
        )


class FactTable:
    """Facts of all samples, compressed: sample i has keys[offset[i]:offset[i + 1]].

    Args:
        facts: rows of ``schema.FACTS`` that sentences are made of.
        user_ids, cutoffs_us: the samples.
        everything: all rows, if ``facts`` is a selection of them. Who bought something that no
            sentence is about did not buy nothing.
    """

    def __init__(
        self,
        facts: pa.Table,
        user_ids: list[str],
        cutoffs_us: np.ndarray,
        *,
        everything: pa.Table | None = None,
    ):
        self.samples = list(zip(user_ids, cutoffs_us.tolist(), strict=True))
        row = _samples(facts, user_ids, cutoffs_us)
        whole = facts if everything is None else everything
        purchases = whole.filter(pc.equal(whole["kind"], "purchase"))
        buyers = _samples(purchases, user_ids, cutoffs_us)
        bought = np.zeros(len(user_ids), bool)
        bought[buyers[buyers >= 0]] = True
        nothing = np.flatnonzero(~bought)

        distinct = facts.select(["kind", "subject"]).group_by(["kind", "subject"]).aggregate([])
        self.names = sorted(
            {(each["kind"], each["subject"]) for each in distinct.to_pylist()} | {_NOTHING_BOUGHT}
        )
        kinds, subjects = (pa.array(column) for column in zip(*self.names, strict=True))
        key = _position([facts["kind"], facts["subject"]], [kinds, subjects])
        counted = pa.array([kind for kind in KINDS if templates.is_counted(kind)])
        size = pc.if_else(
            pc.is_in(facts["kind"], value_set=counted),
            facts["count"].cast(pa.float64()),
            facts["amount"],
        )
        size = pc.fill_null(size, 0.0).to_numpy()
        keep = row >= 0
        row = np.concatenate([row[keep], nothing])
        key = np.concatenate(
            [key[keep], np.full(len(nothing), self.names.index(_NOTHING_BOUGHT), np.int64)]
        )
        size = np.concatenate([size[keep], np.ones(len(nothing))])
        order = np.lexsort((key, row))
        self.keys, self.sizes = key[order], size[order]
        counts = np.bincount(row, minlength=len(user_ids))
        self.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def of(self, samples_B: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Facts of some samples: position in ``samples_B``, key, size."""
        start, length = self.offsets[samples_B], np.diff(self.offsets)[samples_B]
        position = np.repeat(np.arange(len(samples_B)), length)
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        at = np.repeat(start, length) + within
        return position, self.keys[at], self.sizes[at]


class OutcomeTable:
    """Yes, no or unknown for each sample and outcome.

    Args:
        outcomes: rows of ``schema.OUTCOMES``.
        user_ids, cutoffs_us: the samples.
    """

    def __init__(self, outcomes: pa.Table, user_ids: list[str], cutoffs_us: np.ndarray):
        self.user_ids, self.cutoffs_us = user_ids, cutoffs_us
        pairs = outcomes.select(["outcome", "horizon_days"]).group_by(
            ["outcome", "horizon_days"]
        ).aggregate([]).to_pylist()  # fmt: skip
        self.names = sorted((each["outcome"], each["horizon_days"]) for each in pairs)
        self.label_NO = np.full((len(user_ids), len(self.names)), -1, np.int8)
        if not self.names:
            return
        row = _samples(outcomes, user_ids, cutoffs_us)
        kinds = [pa.array(column) for column in zip(*self.names, strict=True)]
        column = _position([outcomes["outcome"], outcomes["horizon_days"]], kinds)
        kept = row >= 0
        happened = outcomes["happened"].to_numpy(zero_copy_only=False)
        self.label_NO[row[kept], column[kept]] = happened[kept]

    def counts(self) -> dict[str, int]:
        """How many samples showed each outcome, over all horizons."""
        counts: dict[str, int] = {}
        for (name, _), num in zip(self.names, (self.label_NO == 1).sum(0), strict=True):
            counts[name] = counts.get(name, 0) + int(num)
        return counts


class PairSampler:
    """Draws pair batches.

    Args:
        rows: history row of each sample.
        outcomes: overall behaviours, each asked for in every step beside the facts.
        outcome_weight: how much an outcome's sentence counts against a fact's.
        tokenize: sentences → token tensors of the text tower.
        num_sentences: S, sentences per worker and step.
        horizon_days: length of the future, spoken in some wordings.
    """

    def __init__(
        self,
        collate: Collate,
        facts: FactTable,
        rows: np.ndarray,
        tokenize: Callable[[list[str]], dict[str, Tensor]],
        *,
        num_sentences: int,
        horizon_days: int,
        outcomes: OutcomeTable | None = None,
        outcome_weight: float = 1.0,
    ):
        self.outcomes, self.outcome_weight = outcomes, outcome_weight
        self.collate, self.facts, self.rows, self.tokenize = collate, facts, rows, tokenize
        self.num_sentences, self.horizon_days = num_sentences, horizon_days

    def __call__(self, samples_B: np.ndarray, rng: np.random.Generator) -> PairBatch:
        """The pair batch of these samples. Collective when several workers train."""
        position, key, size = self.facts.of(samples_B)
        chosen = self._choose(key, rng)
        wording, least = self._word(chosen, key, size, rng)
        texts = [
            templates.sentence(
                self.facts.names[k][0], [self.facts.names[k][1]], num=n,
                horizon_days=self.horizon_days, wording=w,
            )
            for k, w, n in zip(chosen, wording, least, strict=True)
        ]  # fmt: skip
        # Labels of own users against every worker's sentences, then everybody's rows.
        keys_S = distributed.gather(torch.from_numpy(chosen)).numpy()
        least_S = distributed.gather(torch.from_numpy(least)).numpy()
        own_BS = _labels(position, key, size, keys_S, least_S, len(samples_B)).astype(np.int8)
        weight_S = np.ones(len(texts), np.float32)
        if self.outcomes is not None and self.outcomes.names:
            own_BS = self._with_outcomes(own_BS, samples_B)
            texts += self._outcome_sentences(rng)
            more = np.full(len(self.outcomes.names), self.outcome_weight, np.float32)
            weight_S = np.concatenate([weight_S, more])
        return PairBatch(
            users=self.collate(self.rows[samples_B]),
            tokens=self.tokenize(texts),
            label_BS=distributed.gather(torch.from_numpy(own_BS)),
            weight_S=distributed.gather(torch.from_numpy(weight_S)),
        )

    def _with_outcomes(self, own_BS: np.ndarray, samples_B: np.ndarray) -> np.ndarray:
        """Each worker's facts are followed by the outcomes, as in the gathered sentences."""
        assert self.outcomes is not None
        told_BO = self.outcomes.label_NO[samples_B]
        facts = np.split(own_BS, distributed.world_size(), axis=1)
        return np.concatenate([part for each in facts for part in (each, told_BO)], 1)

    def _outcome_sentences(self, rng: np.random.Generator) -> list[str]:
        assert self.outcomes is not None
        return [
            templates.outcome_sentence(
                outcome, horizon_days=days,
                wording=int(rng.integers(templates.num_outcome_wordings(outcome))),
            )
            for outcome, days in self.outcomes.names
        ]  # fmt: skip

    def _choose(self, key: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """S distinct facts: by the square root of their frequency here, then at random.

        The root keeps rare intents in play without letting them crowd out the common ones.
        """
        keys, counts = np.unique(key, return_counts=True)
        num = min(self.num_sentences, len(keys))
        weight = np.sqrt(counts)
        chosen = keys  # none at all, if everybody here bought what no sentence is about
        if num:
            chosen = rng.choice(keys, num, replace=False, p=weight / weight.sum())
        everything = np.arange(len(self.facts.names))
        rest = np.setdiff1d(everything, chosen)
        rest = rest if len(rest) else everything
        fill = rng.choice(rest, self.num_sentences - num, replace=len(rest) < self.num_sentences)
        return np.concatenate([chosen, fill]).astype(np.int64)

    def _word(
        self, chosen: np.ndarray, key: np.ndarray, size: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Wording of each sentence, and the number it names (0 where the wording has none)."""
        names = [self.facts.names[k] for k in chosen]
        most = np.array([templates.num_wordings(k, nothing=s == "") for k, s in names])
        wording = (rng.random(len(chosen)) * most).astype(np.int64)
        least = np.zeros(len(chosen))
        for i in np.flatnonzero(wording == 0):
            sizes = size[key == chosen[i]]
            if len(sizes) and names[i][1]:
                # "more than": the number stays below the one it is drawn from.
                least[i] = templates.round_down(float(rng.choice(sizes)) * _BELOW)
        return wording, least


def _samples(rows: pa.Table, user_ids: list[str], cutoffs_us: np.ndarray) -> np.ndarray:
    """The sample that each row is about, int64; -1 if none."""
    cutoffs = rows["cutoff"].cast(TIMESTAMP).cast(pa.int64())
    samples = [pa.array(user_ids), pa.array(cutoffs_us, pa.int64())]
    return _position([rows["user_id"], cutoffs], samples)


def _position(columns: list[pa.ChunkedArray], among: list[pa.Array]) -> np.ndarray:
    """Where each row of ``columns`` stands in ``among``, int64; -1 if nowhere."""
    rows, values = (
        pc.binary_join_element_wise(*(pc.cast(c, pa.string()) for c in each), "\x1f")
        for each in (columns, among)
    )
    index = pc.index_in(rows, value_set=values)
    return pc.fill_null(index, -1).to_numpy().astype(np.int64)


def _labels(
    position: np.ndarray, key: np.ndarray, size: np.ndarray,
    keys_S: np.ndarray, least_S: np.ndarray, num_samples: int,
) -> np.ndarray:  # fmt: skip
    """bool [B, S]: the sample has the sentence's fact, of more than the named size."""
    labels_BS = np.zeros((num_samples, len(keys_S)), bool)
    order = np.argsort(keys_S, kind="stable")
    left = np.searchsorted(keys_S[order], key, "left")
    right = np.searchsorted(keys_S[order], key, "right")
    for shift in range(int((right - left).max(initial=0))):  # a key occurs once per worker
        hit = np.flatnonzero(left + shift < right)
        column = order[left[hit] + shift]
        labels_BS[position[hit], column] = (size[hit] > least_S[column]) | (least_S[column] == 0)
    return labels_BS
