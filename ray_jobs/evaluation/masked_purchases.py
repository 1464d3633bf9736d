"""What ShopperBERT has learned of its nine pretext tasks, against two things that need no learning.

The *prior* says of every hidden token what training saw how often. *Copying* says what the nearest
token of the log that is not hidden has, of two the older: it sees what the model sees, and not how
far apart in time they are, since the hidden date is part of what is asked. Purchases of one basket
share their moment, so for the date it is right most of the time as long as single tokens are
hidden, which is why whole baskets are hidden as well. A copier that is sure of itself would have an
infinite loss; it is mixed with the prior, at the share that is best for it on the very tokens it is
judged by.

Shapes as in ``encoders/purchases.py``; m hidden tokens, C values of a field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn import functional

from encoders.purchase_masking import Masked, mask_purchases
from encoders.purchases import FIELDS, UNKNOWN, PurchaseBatch, PurchaseCollate
from encoders.shopper_bert import ShopperBert

_SHARES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)
_BATCH = 64


@dataclass(frozen=True)
class Score:
    """One task: cross-entropy in nats and share of tokens got right, of each predictor."""

    task: str
    values: int  # how many the field has; 1 says nothing
    tokens: int
    model: float
    prior: float
    copying: float
    model_right: float
    prior_right: float
    copying_right: float


def scores(
    model: ShopperBert,
    collate: PurchaseCollate,
    users: Sequence[str],
    *,
    whole_visits: bool,
    counts: dict[str, np.ndarray],
    seed: int = 0,
) -> list[Score]:
    """Every task's scores on the latest stretch of each user, 15 % of the tokens hidden.

    Args:
        counts: field → how often training saw each of its values, [C].
    """
    torch.manual_seed(seed)
    found: dict[str, list[np.ndarray]] = {name: [] for name in FIELDS}
    for start in range(0, len(users), _BATCH):
        logs = [
            collate.history.latest(user, length=model.config.length, stretches=1)
            for user in users[start : start + _BATCH]
        ]
        stretches = [log[0] for log in logs if log]
        if not stretches:
            continue
        batch = collate(stretches, range(len(stretches)), len(stretches))
        masked = mask_purchases(
            batch.filled_RT, batch.visit_RT, share=model.config.mask_share,
            whole_visits=whole_visits, all_masked=True,
        )  # fmt: skip
        for name, rows in _scored(model, batch, masked, counts).items():
            found[name].append(rows)
    return [_summed(name, np.concatenate(found[name]), counts[name]) for name in FIELDS]


def seen_counts(collate: PurchaseCollate, vocabularies: dict[str, list]) -> dict[str, np.ndarray]:
    """How often a history holds each known value of each field."""
    every = collate([np.arange(len(collate.history.times_n))], [0], 1).codes_RTF[0].numpy()
    return {
        name: np.bincount(every[:, place], minlength=1 + len(vocabularies[name]))[1:]
        for place, name in enumerate(FIELDS)
    }


def nearest_shown(filled_RT: np.ndarray, hidden_RT: np.ndarray) -> np.ndarray:
    """Column of the nearest token that is not hidden, the older of two; -1 if none. [R, T]"""
    place_T = np.arange(filled_RT.shape[1])
    gap_TT = np.abs(place_T[:, None] - place_T[None, :]).astype(np.float64)
    shown_RT = filled_RT & ~hidden_RT
    gap_RTT = np.where(shown_RT[:, None, :], gap_TT, np.inf)
    return np.where(shown_RT.any(1)[:, None], gap_RTT.argmin(2), -1)


@torch.inference_mode()
def _scored(
    model: ShopperBert, batch: PurchaseBatch, masked: Masked, counts: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Per task [m, 5]: the model's loss and hit, prior of the target, prior's hit, copy's hit."""
    hidden_RT = masked.chosen_RT
    codes_RTF = batch.codes_RTF
    targets_mF = codes_RTF[hidden_RT].numpy()
    at = nearest_shown(batch.filled_RT.numpy(), hidden_RT.numpy())
    rows, _ = np.nonzero(hidden_RT.numpy())
    column_m = at[hidden_RT.numpy()]
    copied_mF = np.where(column_m[:, None] >= 0, codes_RTF.numpy()[rows, column_m], UNKNOWN)
    logits = model.predict(batch, masked)
    out = {}
    for place, name in enumerate(FIELDS):
        target_m = targets_mF[:, place]
        known_m = target_m != UNKNOWN
        prior_C = (counts[name] + 0.5) / (counts[name] + 0.5).sum()
        index_m = target_m[known_m] - 1
        if name in logits:
            logits_mC = logits[name].float()[torch.from_numpy(known_m)]
            loss_m = functional.cross_entropy(
                logits_mC, torch.from_numpy(index_m), reduction="none"
            ).numpy()
            hit_m = logits_mC.argmax(1).numpy() == index_m
        else:
            loss_m, hit_m = np.zeros(len(index_m)), np.ones(len(index_m))
        copied_m = copied_mF[known_m, place]
        out[name] = np.stack(
            [loss_m, hit_m, prior_C[index_m], index_m == prior_C.argmax(),
             copied_m == target_m[known_m]], 1,
        )  # fmt: skip
    return out


def _summed(name: str, rows_m5: np.ndarray, counts: np.ndarray) -> Score:
    loss_m, hit_m, prior_m, prior_hit_m, copied_m = rows_m5.T
    copying = min(
        float(-np.log((1 - share) * copied_m + share * prior_m).mean()) for share in _SHARES
    )
    return Score(
        name, len(counts), len(rows_m5), float(loss_m.mean()), float(-np.log(prior_m).mean()),
        copying, float(hit_m.mean()), float(prior_hit_m.mean()), float(copied_m.mean()),
    )  # fmt: skip


def markdown(found: dict[str, list[Score]]) -> str:
    """Tables, one per way of hiding."""
    lines = []
    for title, rows in found.items():
        lines += [f"**{title}**", "", "| task | values | model | prior | copying | model right | "
                  "prior right | copying right |", "|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for row in rows:
            figures = [f"{value:.3f}" for value in list(asdict(row).values())[3:]]
            lines.append(f"| {row.task} | {row.values} | {' | '.join(figures)} |")
        lines.append("")
    return "\n".join(lines)
