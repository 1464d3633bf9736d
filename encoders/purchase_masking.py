"""What is hidden and how logs are varied in masked purchase prediction (One4all 3, 4.1.2).

Shapes as in ``purchases.py``: R stretches, T places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MASK = -1
"""In ``Masked.source_RT``: the place shows the mask token."""

_MASKED, _REPLACED = 0.8, 0.1  # of the chosen tokens; the rest stay as they are
_ROUNDING = 1e-9  # 0.7 * 10 is not 7
_VARIED = 0.3  # of a log that shuffling touches, and that cropping keeps at least


@dataclass(frozen=True)
class Masked:
    """Which tokens are to be predicted, and what stands in each place meanwhile."""

    chosen_RT: Tensor  # bool
    source_RT: Tensor  # int64, place (row * T + column) of the token that is shown, or MASK


def mask_purchases(
    filled_RT: Tensor,
    visit_RT: Tensor,
    *,
    share: float,
    whole_visits: bool = False,
    all_masked: bool = False,
) -> Masked:
    """Choose tokens; 80 % of them become the mask, 10 % a random token of the batch, 10 % stay.

    Args:
        share: of the tokens that are chosen, 0.15 in the paper.
        whole_visits: choose all purchases of a moment or none: the rest of a basket gives the date
            of its purchases away.
        all_masked: the mask in place of every chosen token, for measuring.
    """
    R, T = filled_RT.shape
    device = filled_RT.device
    if whole_visits:
        visits, inverse_RT = visit_RT.unique(return_inverse=True)
        draw_RT = torch.rand(len(visits), device=device)[inverse_RT]
        fate_RT = torch.rand(len(visits), device=device)[inverse_RT]
    else:
        draw_RT, fate_RT = torch.rand(2, R, T, device=device)
    chosen_RT = (draw_RT < share) & filled_RT
    source_RT = torch.arange(R * T, device=device).view(R, T)
    tokens = filled_RT.flatten().nonzero().squeeze(1)
    if len(tokens):
        random_RT = tokens[torch.randint(len(tokens), (R, T), device=device)]
        masked_RT = chosen_RT & (all_masked | (fate_RT < _MASKED))
        replaced_RT = chosen_RT & ~masked_RT & (fate_RT < _MASKED + _REPLACED)
        source_RT = torch.where(replaced_RT, random_RT, source_RT)
        source_RT = source_RT.masked_fill(masked_RT, MASK)
    return Masked(chosen_RT, source_RT)


def augmented(log: np.ndarray, rng: np.random.Generator, *, crop: float) -> np.ndarray:
    """Algorithm 1: a cropped log with probability ``crop``, else a partly shuffled one.

    Cropping keeps a run of at least 30 %, shuffling touches a run of 30 %.
    """
    size = len(log)
    if not size:
        return log
    least = _VARIED * size
    low = int(rng.integers(0, int(size - least + _ROUNDING) + 1))
    if rng.random() < crop:
        high = int(rng.integers(int(np.ceil(low + least - _ROUNDING)), size + 1))
        return log[low:high]
    high = int(low + least + _ROUNDING)
    out = log.copy()
    out[low:high] = rng.permutation(log[low:high])
    return out
