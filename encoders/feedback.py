"""Relevance feedback: whoever did it before teaches a subject's sentence what to look for.

A sentence's vector comes from its words. Who bought cheese in the past is known as well, and a
ridge regression of these counts on all users' vectors is a direction of the same space, in which
whatever the vectors hold speaks for cheese: other habits, the sequence, the profile. The direction
looks at no future. A subject's query is its sentence's vector and a weight times that direction,
each as large in the scores of the population and together as large as the sentence's alone: scores
keep their scale. The weight is ``weight`` at most, and less for a subject that users took to
without regard to their past: what they did in a horizon that was over by training says how the two
scores are best added up (stacked regression, Wolpert 1992, by Fisher's discriminant). Where no
training sentence was about the subject its words mostly add noise, for it never learnt what not to
be taken for, and the direction speaks alone.

Only sentences in the templates' own words are answered so; demands in other words get there by
being read as such sentences (``encoders.grounding``). Not from FOUND. The idea is Rocchio's (1971),
with a regression in place of the mean of the relevant ones.

Shapes: U users, S subjects, J width of the joint space, n texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from encoders.lists import Lists


@dataclass(frozen=True)
class FeedbackConfig:
    """How much the past says; chosen in docs/decisions/best-preset.md."""

    ridge: float = 1.0  # against the mean variance of the users' coordinates
    weight: float = 1.5  # of the direction against the sentence's own vector, at most
    doubt: float = 30.0  # users who did a thing count as many as this prior, that of all subjects
    windows: int = 52  # weeks that are counted
    least: int = 20  # users who did it, below which nothing is learnt of a subject
    most: int = 1_000  # subjects; the most frequent are kept
    sentences: tuple[str, ...] = ()  # that have feedback, once fitted

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentences", tuple(self.sentences))  # a list when read from JSON


class Feedback(nn.Module):
    """Sentences about known subjects → what is added to their vectors."""

    def __init__(self, config: FeedbackConfig, width: int):
        super().__init__()
        self.config = config
        self._place = {sentence: place for place, sentence in enumerate(config.sentences)}
        self.shift_SJ: Tensor
        self.level_S: Tensor
        self.register_buffer("shift_SJ", torch.zeros(len(config.sentences), width))
        self.register_buffer("level_S", torch.zeros(len(config.sentences)))

    def forward(self, texts: Sequence[str]) -> Tensor:
        """What the past adds to each text's vector, [n, J]; 0 for all but known sentences."""
        return self._of(texts, self.shift_SJ)

    def level(self, texts: Sequence[str]) -> Tensor:
        """What the mean score of all users lost by that, [n]: a probability has to give it back."""
        return self._of(texts, self.level_S)

    def _of(self, texts: Sequence[str], values: Tensor) -> Tensor:
        found = values.new_zeros(len(texts), *values.shape[1:])
        for row, text in enumerate(texts):
            if (place := self._place.get(text)) is not None:
                found[row] = values[place]
        return found

    @torch.no_grad()
    def fit(
        self, users_UJ: Tensor, counts_US: Tensor, sentences_SJ: Tensor, trained_S: Tensor,
        shown_US: Tensor,
    ) -> None:  # fmt: skip
        """Learn the shifts, once, from the population's vectors and its past.

        Args:
            counts_US: how often each user did it, or a growing function of that.
            sentences_SJ: the sentences' own vectors.
            trained_S: bool, whether a training sentence was about the subject.
            shown_US: bool, who did it after the moment of ``users_UJ``; nobody where that is not
                to be looked at.
        """
        centred_UJ = (users_UJ - users_UJ.mean(0)).double()
        covariance_JJ = centred_UJ.T @ centred_UJ / len(centred_UJ)
        size = covariance_JJ.diagonal().mean().clamp(min=1e-12)
        ridge_JJ = self.config.ridge * size * torch.eye(len(covariance_JJ), dtype=torch.double)
        past_JS = centred_UJ.T @ counts_US.double() / len(centred_UJ)
        direction_SJ = torch.linalg.solve(covariance_JJ + ridge_JJ.to(past_JS), past_JS).T

        def spread(queries_SJ: Tensor) -> Tensor:
            """Standard deviation of a query's scores over the population, [S, 1]."""
            variance_S = ((queries_SJ @ covariance_JJ) * queries_SJ).sum(1)
            return variance_S.clamp(min=1e-24).sqrt().unsqueeze(1)

        words_SJ = sentences_SJ.double()
        of_words_S1, of_past_S1 = spread(words_SJ), spread(direction_SJ)
        words_SJ, direction_SJ = words_SJ / of_words_S1, direction_SJ / of_past_S1
        most = direction_SJ.new_full((len(words_SJ),), self.config.weight)
        borne_S = borne_out(centred_UJ, words_SJ, direction_SJ, shown_US & trained_S, self.config)
        weight_S = torch.where(trained_S, borne_S, most)
        answer_SJ = words_SJ * trained_S.unsqueeze(1) + weight_S.unsqueeze(1) * direction_SJ
        usual = of_words_S1[trained_S if trained_S.any() else ~trained_S].median()
        size_S1 = torch.where(trained_S.unsqueeze(1), of_words_S1, usual)
        self.shift_SJ.copy_(answer_SJ * size_S1 / spread(answer_SJ) - sentences_SJ)
        self.level_S.copy_(-self.shift_SJ @ users_UJ.mean(0))


def borne_out(
    users_UJ: Tensor, words_SJ: Tensor, past_SJ: Tensor, shown_US: Tensor, config: FeedbackConfig
) -> Tensor:
    """How much the past's scores count against the words', [S], between 0 and ``config.weight``.

    Fisher's discriminant between those who did it and those who did not, in the plane of the two
    scores. A subject that few did is judged by what is so of all.

    Args:
        users_UJ: centred.
        words_SJ, past_SJ: queries whose scores over the users have variance 1.
    """
    did_S = shown_US.sum(0).to(users_UJ)
    if not did_S.any():
        return users_UJ.new_full((shown_US.shape[1],), config.weight)
    rest_S = (len(users_UJ) - did_S).clamp(min=1)
    doers_SJ = shown_US.T.to(users_UJ) @ users_UJ  # summed; the rest is as far on the other side
    contrast_SJ = doers_SJ * (1 / did_S.clamp(min=1) + 1 / rest_S).unsqueeze(1)

    def judged(values_S: Tensor) -> Tensor:
        of_all = (values_S * did_S).sum() / did_S.sum()
        return (values_S * did_S + of_all * config.doubt) / (did_S + config.doubt)

    words_S, past_S = (judged((contrast_SJ * each).sum(1)) for each in (words_SJ, past_SJ))
    covariance_JJ = users_UJ.T @ users_UJ / len(users_UJ)
    alike_S = judged(((words_SJ @ covariance_JJ) * past_SJ).sum(1))
    for_past_S, for_words_S = past_S - alike_S * words_S, words_S - alike_S * past_S
    most = config.weight
    weight_S = torch.where(for_past_S < most * for_words_S, for_past_S / for_words_S, most)
    return torch.where(for_past_S > 0, weight_S, 0.0)


def past(
    lists: Lists, subjects: Sequence[str], rows_BW: np.ndarray, config: FeedbackConfig
) -> tuple[tuple[str, ...], Tensor]:
    """The subjects that enough users did, and the logarithms of how often each user did them.

    Args:
        lists: weekly rows of subjects, whose ids are places in ``subjects``.
        rows_BW: rows of each user's ``config.windows`` latest weeks, one user each (B = U).

    Returns:
        subjects in order, and float32 [U, S].
    """
    U, W = rows_BW.shape
    ids, _, weights, length_BW = lists.cut(rows_BW)
    owner = np.repeat(np.arange(U * W), length_BW.reshape(-1)) // W
    pairs, where = np.unique(owner * len(subjects) + ids, return_inverse=True)
    counts = np.bincount(where, weights, len(pairs))
    owner, ids = np.divmod(pairs, max(len(subjects), 1))
    users_V = np.bincount(ids, minlength=len(subjects))
    kept = np.argsort(-users_V, kind="stable")[: config.most]
    kept = np.sort(kept[users_V[kept] >= config.least])
    place_V = np.full(len(subjects), -1)
    place_V[kept] = np.arange(len(kept))
    known = place_V[ids] >= 0
    counts_US = np.zeros((U, len(kept)), np.float32)
    counts_US[owner[known], place_V[ids[known]]] = np.log1p(counts[known])
    return tuple(subjects[v] for v in kept), torch.from_numpy(counts_US)
