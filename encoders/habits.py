"""Habits: recency and frequency of what a user bought, read through the subjects' text.

Plain counts rank the buyers of a known category better than any embedding of text; but a count
has no words. Here each habit of a user (a subject and how recent, how frequent it is) adds the
subject's sentence vector to the user's, in K ways, each with a weight that a small network learns
from the counts; each category p of the profile adds a vector of its own:

    u = MLP(totals) + Σ_p v_p(value) + Σ_k (s_k z_k + z_k A_k B_k)
    z_k = Σ_c φ_k(counts of c, totals, text of c) · x_c

where way 0 starts as the subject's own vector and the rest at nothing, and A_k B_k has low rank.
As a sentence's vector starts as its text's too, its score starts as the decayed count of what it
names plus that of what is alike in words; training adds what goes with what. Not from FOUND: an
aggregates view beside its three modalities (docs/decisions/best-preset.md).

Shapes: B users, n pairs of user and subject, V subjects, E = D width of the joint space, K ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.habit_counts import HALF_LIVES, NUM_PAIR_FEATURES, NUM_USER_FEATURES, HabitBatch
from encoders.layers import Standardise

_START = (0.3, 0.6, 1.0, 0.6)  # of the counts by half-life, standardised
_PRESENT = 5.0  # so that a habit never weighs less than none


@dataclass(frozen=True)
class HabitConfig:
    """Sizes of the habit encoder."""

    width: int = 384  # of a sentence vector, and of the joint space
    ways: int = 8
    hidden: int = 64
    rank: int = 48
    dropout: float = 0.2  # share of habits forgotten at random while training
    windows: int = 52  # weeks counted over
    profile_width: int = 0  # continuous profile columns read beside the counts
    profile_sizes: tuple[int, ...] = ()  # how many codes each categorical one has

    def __post_init__(self) -> None:
        object.__setattr__(self, "profile_sizes", tuple(self.profile_sizes))  # a list in JSON


class HabitEncoder(nn.Module):
    """Habits → a vector of the joint space."""

    def __init__(self, config: HabitConfig):
        super().__init__()
        self.config = config
        K, H, E, r = config.ways, config.hidden, config.width, config.rank
        self.pair_scale = Standardise(NUM_PAIR_FEATURES)
        self.user_scale = Standardise(NUM_USER_FEATURES)
        user_width = NUM_USER_FEATURES + config.profile_width
        self.of_pair = nn.Linear(NUM_PAIR_FEATURES, H)
        self.of_user = nn.Linear(user_width, H)
        self.of_text = nn.Linear(E, H, bias=False)
        self.network = nn.Sequential(
            nn.GELU(), nn.Linear(H, H), nn.GELU(), nn.Linear(H, K, bias=False)
        )
        self.direct = nn.Linear(NUM_PAIR_FEATURES, K)
        self.overall = nn.Sequential(
            nn.Linear(user_width, 2 * H), nn.GELU(), nn.Linear(2 * H, 2 * H), nn.GELU(),
            nn.Linear(2 * H, E),
        )  # fmt: skip
        self.of_values: nn.Embedding | None = None
        if config.profile_sizes:
            self.first_code_C: Tensor
            first_code = torch.tensor([0, *config.profile_sizes]).cumsum(0)
            self.register_buffer("first_code_C", first_code[:-1], False)
            self.of_values = nn.Embedding(int(first_code[-1]), E)
            nn.init.zeros_(self.of_values.weight)
        nn.init.zeros_(self.overall[-1].weight)
        nn.init.zeros_(self.overall[-1].bias)
        self.scale_KE = nn.Parameter(torch.zeros(K, E))
        self.into_KEr = nn.Parameter(torch.randn(K, E, r) * E**-0.5)
        self.out_KrE = nn.Parameter(torch.zeros(K, r, E))
        with torch.no_grad():
            self.scale_KE[0] = 1.0
            self.direct.weight.normal_(0, 0.1)
            self.direct.weight[0] = 0.0
            self.direct.weight[0, : len(HALF_LIVES)] = torch.tensor(_START)
            self.direct.bias.zero_()
            self.direct.bias[0] = _PRESENT
            self.network[-1].weight.normal_(0, 0.02)

    def fit(self, habits: HabitBatch) -> None:
        """Learn the moments of the counts, once, before training."""
        self.pair_scale.fit(habits.pairs_nF)
        self.user_scale.fit(habits.users_BU)

    def forward(
        self, habits: HabitBatch, whitened_VE: Tensor, profile_BP: Tensor, codes_BC: Tensor
    ) -> Tensor:
        """The users' vectors, [B, E].

        Args:
            whitened_VE: ``habits.subjects_VE`` as the text tower whitens it.
            profile_BP: standardised continuous profile columns, P = ``profile_width``.
            codes_BC: categorical ones as ``encoders.table`` codes them, C = ``profile_sizes``.
        """
        x_VE = whitened_VE * self.config.width**-0.5  # about unit length
        overall_BU = torch.cat([self.user_scale(habits.users_BU), profile_BP], 1)
        weight_nK = self._weights(habits, x_VE, overall_BU)
        user_BE = self.overall(overall_BU)
        if self.of_values is not None:
            user_BE = user_BE + self.of_values(codes_BC + self.first_code_C).sum(1)
        # Summed before it is mapped: users are fewer than subjects. In full precision, whatever the
        # products are computed in: a sum of hundreds in bfloat16 would lose the rare ones.
        x_VE, weight_Kn = x_VE.float(), weight_nK.float().T.contiguous()
        sum_KBE = torch.stack([
            functional.embedding_bag(
                habits.ids, x_VE, habits.offsets, mode="sum", per_sample_weights=weight_n
            )
            for weight_n in weight_Kn
        ])  # fmt: skip
        mapped_KBE = sum_KBE @ self.into_KEr @ self.out_KrE
        return user_BE + (sum_KBE * self.scale_KE[:, None] + mapped_KBE).sum(0)

    def _weights(self, habits: HabitBatch, x_VE: Tensor, overall_BU: Tensor) -> Tensor:
        """φ: how much each habit adds in each way, [n, K]."""
        pairs_nF = self.pair_scale(habits.pairs_nF)
        user_BH = self.of_user(overall_BU)
        hidden_nH = self.of_pair(pairs_nF) + user_BH[habits.owner] + self.of_text(x_VE)[habits.ids]
        weight_nK = self.network(hidden_nH) + self.direct(pairs_nF)
        if self.training and self.config.dropout:
            kept = torch.rand(len(weight_nK), 1, device=x_VE.device) >= self.config.dropout
            weight_nK = weight_nK * kept / (1 - self.config.dropout)
        return weight_nK
