"""Outlook: what boosted trees expect of a user's overall behaviour, as axes of the fused vector.

Whether somebody leaves, spends a lot, spends more or redeems a coupon hangs on a few dozen totals
and on their interplay: having spent less than usual lately says that spending will rise only of
those who still come. Trees find that from few users; a network that also has to rank a thousand
subjects does not. So the fused vector holds, beside the joint space, one axis per outcome: the
trees' log-odds, standardised. The plain sentence about an outcome reads its axis and its own
words, each as large in the scores of the population; scores keep their scale. All other sentences
hold zeros there. Models on frozen vectors read the axes like any coordinate. Not from FOUND; what
it adds is an ablation (docs/decisions/best-preset.md).

Shapes: B users, U users that it is fitted on, F features, K outcomes, J width of the joint space,
n texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encoders.forest import Forest


@dataclass(frozen=True)
class OutlookConfig:
    """How large the axes are, how much sentences rely on them, and how the trees grow."""

    ratio: float = 0.3  # variance of all axes together against that of the joint space
    weight: float = 1.0  # of the axis against the sentence's own vector
    trees: int = 200
    leaves: int = 15
    depth: int = 6
    learning_rate: float = 0.03
    least: int = 50  # users who did it, and who did not, below which nothing is learnt
    sentences: tuple[str, ...] = ()  # the outcomes, once fitted

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentences", tuple(self.sentences))  # a list when read from JSON


class Outlook(nn.Module):
    """Totals of a user → axes; texts → how they read them."""

    def __init__(self, config: OutlookConfig):
        super().__init__()
        self.config = config
        self._place = {sentence: place for place, sentence in enumerate(config.sentences)}
        K = len(config.sentences)
        self.forest = Forest(num=K, trees=config.trees, leaves=config.leaves, depth=config.depth)
        self.mean_K: Tensor
        self.scale_K: Tensor
        self.keep_K: Tensor
        self.reach_K: Tensor
        self.level_K: Tensor
        self.register_buffer("mean_K", torch.zeros(K))
        self.register_buffer("scale_K", torch.ones(K))
        self.register_buffer("keep_K", torch.ones(K))  # of a sentence's own vector
        self.register_buffer("reach_K", torch.zeros(K))  # its coordinate on its axis
        self.register_buffer("level_K", torch.zeros(K))

    @torch.no_grad()
    def fit(self, features_UF: Tensor, joint_UJ: Tensor, queries_KJ: Tensor) -> None:
        """Standardise the axes and let sentences read them, once the trees have grown.

        Args:
            features_UF: the population's totals.
            joint_UJ: the same users in the joint space.
            queries_KJ: the sentences' own vectors.
        """
        K = len(self.config.sentences)
        expected_UK = self.forest(features_UF)
        self.mean_K.copy_(expected_UK.mean(0))
        spread_K = expected_UK.std(0).clamp(min=1e-6)
        size = (self.config.ratio * joint_UJ.var(0).sum() / max(K, 1)).sqrt()
        self.scale_K.copy_(size / spread_K)
        own_UK = joint_UJ @ queries_KJ.T
        of_own_K, weight = own_UK.std(0).clamp(min=1e-12), self.config.weight
        alike_K = ((own_UK - own_UK.mean(0)) * (expected_UK - self.mean_K)).mean(0)
        alike_K = (alike_K / (of_own_K * spread_K)).clamp(-1, 1)
        together_K = (1 + weight**2 + 2 * weight * alike_K).clamp(min=1e-6).sqrt()
        self.keep_K.copy_(1 / together_K)
        self.reach_K.copy_(weight * of_own_K / (size.clamp(min=1e-12) * together_K))
        self.level_K.copy_((1 - self.keep_K) * own_UK.mean(0))

    def forward(self, features_BF: Tensor) -> Tensor:
        """The users' coordinates on the axes, [B, K]."""
        axes_BK: Tensor = (self.forest(features_BF) - self.mean_K) * self.scale_K
        return axes_BK

    def read(self, texts: Sequence[str], own_nJ: Tensor) -> Tensor:
        """Queries of the joint space and the axes, [n, J + K], from the texts' own vectors."""
        keep_n, axes_nK = own_nJ.new_ones(len(texts)), own_nJ.new_zeros(len(texts), self.num)
        for row, text in enumerate(texts):
            if (place := self._place.get(text)) is not None:
                keep_n[row] = self.keep_K[place]
                axes_nK[row, place] = self.reach_K[place]
        return torch.cat([own_nJ * keep_n.unsqueeze(1), axes_nK], 1)

    def level(self, texts: Sequence[str]) -> Tensor:
        """What the mean score of all users lost by that, [n]: a probability has to give it back."""
        lost_n = self.level_K.new_zeros(len(texts))
        for row, text in enumerate(texts):
            if (place := self._place.get(text)) is not None:
                lost_n[row] = self.level_K[place]
        return lost_n

    @property
    def num(self) -> int:
        """K, the number of axes."""
        return len(self.config.sentences)
