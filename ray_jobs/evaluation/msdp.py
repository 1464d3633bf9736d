"""A baseline in the style of MSDP: predict the distribution of behaviours over several horizons.

Multi-scale Stochastic Distribution Prediction reads a user's sequence and is trained to foresee
how behaviours are distributed over a following period, the period's length drawn anew each time.
Here: weekly baskets per category → GRU → the share of each category in the next 1, 2, 4 or 8
weeks, at random weeks before the cut-off. The last state is the vector. No public code of MSDP
exists; this is the idea at our size, trained in a minute.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ray_jobs.evaluation.history import Receipts
from ray_jobs.evaluation.results import NotMeasured
from ray_jobs.evaluation.subject import Subject

SCALES: Final = (1, 2, 4, 8)
"""Weeks of the future whose distribution is foreseen."""

_DIM, _INPUT = 256, 128
_STEPS, _BATCH, _RATE = 200, 128, 2e-3
_LEAST_PAST = 4


class Msdp(nn.Module):
    """Weekly category counts [B, W, C] → states [B, W, D], and a distribution per scale."""

    def __init__(self, categories: int, *, dim: int = _DIM):
        super().__init__()
        self.read = nn.Linear(categories, _INPUT)
        self.gru = nn.GRU(_INPUT, dim, batch_first=True)
        self.foresee = nn.ModuleList(nn.Linear(dim, categories) for _ in SCALES)

    def forward(self, weeks_BWC: Tensor) -> Tensor:
        states_BWD, _ = self.gru(torch.relu(self.read(torch.log1p(weeks_BWC))))
        return states_BWD

    def loss(self, weeks_BWC: Tensor, scale: int) -> Tensor:
        """Cross-entropy between foreseen and actual shares of the next ``SCALES[scale]`` weeks."""
        ahead = SCALES[scale]
        states_BWD = self(weeks_BWC)[:, _LEAST_PAST : weeks_BWC.shape[1] - ahead]
        upto_BWC = functional.pad(weeks_BWC.cumsum(1), (0, 0, 1, 0))
        future_BWC = upto_BWC[:, 1 + ahead :] - upto_BWC[:, 1:-ahead]
        future_BWC = future_BWC[:, _LEAST_PAST:]
        total_BW1 = future_BWC.sum(-1, keepdim=True)
        shares_BWC = future_BWC / total_BW1.clamp(min=1)
        logs_BWC = self.foresee[scale](states_BWD).log_softmax(-1)
        bought_BW = (total_BW1.squeeze(-1) > 0).float()
        each_BW = -(shares_BWC * logs_BWC).sum(-1)
        return (each_BW * bought_BW).sum() / bought_BW.sum().clamp(min=1)


def vectors(subject: Subject, *, seed: int = 0) -> np.ndarray:
    """Trained on what was known before the snapshot's date; the state at that date, [N, 256]."""
    counts_NWC = weekly_counts(subject)
    model = fitted(counts_NWC, seed=seed)
    with torch.inference_mode():
        pieces = [model(batch)[:, -1] for batch in torch.from_numpy(counts_NWC).split(_BATCH)]
    return torch.cat(pieces).numpy()


def fitted(counts_NWC: np.ndarray, *, steps: int = _STEPS, seed: int = 0) -> Msdp:
    """A trained model. A step draws users and one of the scales; NotMeasured if none fits."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Msdp(counts_NWC.shape[2])
    optimiser = torch.optim.AdamW(model.parameters(), _RATE)
    usable = [n for n, weeks in enumerate(SCALES) if counts_NWC.shape[1] > weeks + _LEAST_PAST]
    if not usable:
        raise NotMeasured(f"{counts_NWC.shape[1]} weeks of history are too few to learn from")
    for _ in range(steps):
        users = rng.choice(len(counts_NWC), min(_BATCH, len(counts_NWC)), replace=False)
        loss = model.loss(torch.from_numpy(counts_NWC[users]), int(rng.choice(usable)))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def weekly_counts(subject: Subject) -> np.ndarray:
    """Baskets per user, week and category before the date, oldest week first, float32 [N, W, C]."""
    receipts, users = Receipts(subject.con), subject.users
    row, age_days, category = receipts.bought(subject.manifest.as_of, users)
    back = np.floor(age_days / 7).astype(np.int64)
    weeks = int(back.max(initial=0)) + 1
    counts = np.zeros((len(users), weeks, len(receipts.categories)), np.float32)
    np.add.at(counts, (row, weeks - 1 - back, category), 1.0)
    return counts
