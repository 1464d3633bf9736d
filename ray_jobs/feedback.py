"""What the past teaches a trained model's sentences (``encoders.feedback``): who did what before.

Users stand at their latest training cut-off: their vectors there, and what they had done by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from encoders import templates
from encoders.alignment import FoundModel
from encoders.batch import Collate
from encoders.feedback import past
from encoders.pairs import FactTable, OutcomeTable
from ray_jobs.presets import Preset

_TOGETHER = 512  # users in one pass
_CHANGES = frozenset({"more"})
"""Outcomes against the user's own past: having grown before does not say who will grow."""
_DAY_US = 24 * 3600 * 1_000_000


def fit(
    model: FoundModel, collate: Collate, preset: Preset, facts: FactTable,
    outcomes: OutcomeTable | None, rows: np.ndarray, latest: np.ndarray,
) -> None:  # fmt: skip
    """Give the model's plain sentences feedback.

    Args:
        rows: row in the history of ``collate`` of each sample, in the order of ``facts``.
        latest: the users' latest rows, one each.
    """
    config, history, days = preset.feedback, collate.history, preset.horizon_days
    if config is None or history.habits is None:
        return
    subjects = [templates.plain_sentence(*each, horizon_days=days) for each in history.habit_names]
    asked = {templates.plain_sentence(*each, horizon_days=days) for each in facts.names}
    sentences, counts_US = past(
        history.habits, subjects, history.windows(latest, config.windows), config
    )
    shown_US = done_then(facts, sentences, days, rows, latest)
    trained_S = torch.tensor([sentence in asked for sentence in sentences], dtype=torch.bool)
    if outcomes is not None:
        users = [history.user_ids[row] for row in latest.tolist()]
        repeated, times_UO = outcomes_before(outcomes, users, history.times_R[latest])
        often = [o for o in range(len(repeated)) if int((times_UO[:, o] > 0).sum()) >= config.least]
        sentences += tuple(repeated[o] for o in often)
        counts_US = torch.cat([counts_US, times_UO[:, often]], 1)
        trained_S = torch.cat([trained_S, trained_S.new_ones(len(often))])
        shown_US = torch.cat([shown_US, shown_US.new_zeros(len(users), len(often))], 1)
    if sentences:
        fitted = replace(config, sentences=sentences)
        users_UJ = joint(model, collate, latest)
        model.learn_from_past(fitted, users_UJ, counts_US, trained_S, shown_US)


def done_then(
    facts: FactTable, sentences: Sequence[str], days: int, rows: np.ndarray, latest: np.ndarray
) -> Tensor:
    """Which users did what a sentence says in the horizon after their latest row, bool [U, S]."""
    place = {sentence: s for s, sentence in enumerate(sentences)}
    said_K = [templates.plain_sentence(*name, horizon_days=days) for name in facts.names]
    place_K = np.array([place.get(sentence, -1) for sentence in said_K])
    order = np.argsort(rows, kind="stable")
    samples = order[np.searchsorted(rows, latest, sorter=order)]
    user, key, _ = facts.of(samples)
    subject = place_K[key]
    known = subject >= 0
    shown_US = torch.zeros(len(latest), len(sentences), dtype=torch.bool)
    shown_US[user[known], subject[known]] = True
    return shown_US


def outcomes_before(
    outcomes: OutcomeTable, users: list[str], until_us: np.ndarray
) -> tuple[list[str], Tensor]:
    """Sentences about repeatable outcomes, and how often each user showed them by then.

    Args:
        until_us: the moment [U] by which a horizon must have ended.

    Returns:
        sentences, and the logarithms of the counts, float32 [U, O].
    """
    place = {user: row for row, user in enumerate(users)}
    row_N = np.array([place.get(user, -1) for user in outcomes.user_ids])
    sentences, columns = [], []
    for o, (name, days) in enumerate(outcomes.names):
        if name in _CHANGES:
            continue
        known_N = (row_N >= 0) & (outcomes.label_NO[:, o] == 1)
        known_N &= outcomes.cutoffs_us + days * _DAY_US <= until_us[row_N]
        sentences.append(templates.outcome_sentence(name, horizon_days=days))
        columns.append(np.log1p(np.bincount(row_N[known_N], minlength=len(users))))
    times_UO = np.stack(columns, 1) if columns else np.zeros((len(users), 0))
    return sentences, torch.from_numpy(times_UO.astype(np.float32))


@torch.inference_mode()
def joint(model: FoundModel, collate: Collate, rows: np.ndarray) -> Tensor:
    """Vectors of the joint space at some rows, float32 [U, J], on the CPU."""
    device, parts = next(model.parameters()).device, []
    for start in range(0, len(rows), _TOGETHER):
        batch = collate(rows[start : start + _TOGETHER]).to(device)
        parts.append(model.joint(model.modalities(batch), batch).float().cpu())
    return torch.cat(parts)
