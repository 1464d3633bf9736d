"""Objectives as pure functions of tensors, each named by its paper and equation.

Shapes: B users, T windows, D width, S sentences, C table columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def forecasting(
    context_BTD: Tensor,
    window_BTD: Tensor,
    valid_BT: Tensor,
    *,
    steps: int,
    contexts: int | None = None,
    temperature: float | Tensor = 1.0,
) -> Tensor:
    """Contrastive forecasting of the windows to come (FOUND eq. 6).

    The context after window t must pick the windows t+1 … t+``steps`` of its own user among all
    valid windows of the batch: negatives run over time and over users.

    Args:
        context_BTD: c, what the time-aware function knows after each window.
        window_BTD: z, the window embeddings themselves.
        valid_BT: windows that hold something; the others are neither positive nor negative.
        steps: k, how far ahead positives reach.
        contexts: how many of the first windows serve as contexts; all when None.
        temperature: divides the cosine; 1 as in the paper.

    Returns:
        Scalar; 0 when the batch has no positive pair.
    """
    B, T, _ = context_BTD.shape
    c = functional.normalize(context_BTD.reshape(B * T, -1), dim=-1)
    z = functional.normalize(window_BTD.reshape(B * T, -1), dim=-1)
    logits = c @ z.T / temperature
    valid = valid_BT.reshape(-1)
    log_probability = logits - torch.logsumexp(
        logits.masked_fill(~valid[None, :], float("-inf")), dim=1, keepdim=True
    )
    user = torch.arange(B, device=c.device).repeat_interleave(T)
    time = torch.arange(T, device=c.device).repeat(B)
    ahead = time[None, :] - time[:, None]
    positive = (user[:, None] == user[None, :]) & (ahead >= 1) & (ahead <= steps)
    positive &= valid[None, :] & (time < (T if contexts is None else contexts))[:, None]
    count = positive.sum()
    if count == 0:
        return context_BTD.sum() * 0.0
    return -log_probability[positive].sum() / count


def cyclic(context_BTD: Tensor, valid_BT: Tensor, *, period: int) -> Tensor:
    """KL(c_t ‖ c_{t+period}) between users' own states a cycle apart (FOUND eq. 7).

    A vector becomes a distribution by softmax over its coordinates.
    """
    if context_BTD.shape[1] <= period:
        return context_BTD.sum() * 0.0
    log_p = functional.log_softmax(context_BTD[:, :-period], dim=-1)
    log_q = functional.log_softmax(context_BTD[:, period:], dim=-1)
    divergence_BT = (log_p.exp() * (log_p - log_q)).sum(-1)
    valid = (valid_BT[:, :-period] & valid_BT[:, period:]).to(divergence_BT.dtype)
    return (divergence_BT * valid).sum() / valid.sum().clamp(min=1.0)


def masked_columns(logits: Sequence[Tensor], codes_BC: Tensor, masked_BC: Tensor) -> Tensor:
    """Cross-entropy of the masked categories, summed over a user's masked cells (FOUND eq. 9).

    Args:
        logits: one [B, V_c] per column.

    Returns:
        Scalar, the mean over users.
    """
    total = codes_BC.new_zeros((), dtype=torch.float32)
    for column, logits_BV in enumerate(logits):
        rows = masked_BC[:, column]
        loss_B = functional.cross_entropy(logits_BV, codes_BC[:, column], reduction="none")
        total = total + (loss_B * rows).sum()
    return total / len(codes_BC)


def replaced_detection(logits: Tensor, replaced: Tensor, valid: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of "was this replaced?", mean over all cells or tokens.

    It runs over every cell: over the replaced ones alone the label would be constant. The sum
    over C columns of eq. 10 is C times this.
    """
    loss = functional.binary_cross_entropy_with_logits(
        logits, replaced.to(logits.dtype), reduction="none"
    )
    if valid is None:
        return loss.mean()
    return (loss * valid).sum() / valid.sum().clamp(min=1)


def alignment(logits_BS: Tensor, positive_BS: Tensor, *, symmetric: bool = True) -> Tensor:
    """InfoNCE between users and future sentences (FOUND eq. 15).

    With one positive on the diagonal and ``symmetric=False`` this is the paper's loss, a user
    among sentences; ``symmetric`` averages it with a sentence among users.
    A sentence that fits several users (or a user with several sentences) has several positives;
    each is contrasted with the non-positives only, and the mean runs over its positives.

    Returns:
        Scalar; rows and columns without a positive do not count.
    """
    users = _one_way(logits_BS, positive_BS)
    return 0.5 * (users + _one_way(logits_BS.T, positive_BS.T)) if symmetric else users


def intents(
    logits_BS: Tensor,
    *,
    label_BS: Tensor,
    base_rate_S: Tensor,
    weight_S: Tensor,
    fit_scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """What single-intent sentences teach: whom each fits, and in what order.

    Args:
        logits_BS: scores of users against sentences.
        label_BS: 1 fits, 0 does not, -1 unknown; unknown pairs count nowhere.
        base_rate_S: log-odds of a sentence for a user who scores 0.
        weight_S: how much each sentence counts.
        fit_scale: turns scores into log-odds; the order needs a sharpness of its own.

    Returns:
        The element-wise cross-entropy, which also teaches calibrated contrasts between users, and
        InfoNCE over users, which only orders them. Sentences without a fitting user do not count
        in the second.
    """
    known_BS = label_BS >= 0
    error_BS = functional.binary_cross_entropy_with_logits(
        logits_BS * fit_scale + base_rate_S,
        label_BS.clamp(min=0).to(logits_BS.dtype),
        reduction="none",
    )
    error_S = (error_BS * known_BS).sum(0) / known_BS.sum(0).clamp(min=1)
    fit = (error_S * weight_S).sum() / weight_S.sum()
    order = _one_way(logits_BS.masked_fill(~known_BS, -1e4).T, (label_BS > 0).T)
    return fit, order


def _one_way(logits: Tensor, positive: Tensor) -> Tensor:
    negative = torch.logsumexp(logits.masked_fill(positive, float("-inf")), dim=1, keepdim=True)
    # log p = x - log(e^x + sum of negatives), one positive at a time.
    log_probability = logits - torch.logaddexp(logits, negative)
    count = positive.sum(1)
    per_row = -(log_probability * positive).sum(1) / count.clamp(min=1)
    rows = count > 0
    return per_row[rows].mean() if rows.any() else logits.sum() * 0.0


def triplet(
    query_D: Tensor, positives_PD: Tensor, negatives_ND: Tensor, *, margin: float
) -> Tensor:
    """Every seed user nearer to the query than every negative, by a margin (FOUND eq. 16).

    The sum over all pairs of max(0, ‖q − u⁺‖² − ‖q − u⁻‖² + margin). All three may have the same
    leading dimensions: then one scalar each.
    """
    near_P = (query_D[..., None, :] - positives_PD).square().sum(-1)
    far_N = (query_D[..., None, :] - negatives_ND).square().sum(-1)
    gap_PN = near_P[..., :, None] - far_N[..., None, :] + margin
    return gap_PN.clamp(min=0.0).sum((-2, -1))
