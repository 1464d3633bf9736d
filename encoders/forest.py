"""Boosted trees as tensors: learnt by a library, evaluated by torch, kept as safetensors.

    forest = Forest(num=12, trees=200, leaves=15, depth=6)
    forest.set(0, roots)                    # what the library learnt about the first of 12
    scores_BK = forest(features_BF)         # its own sums, for every user and all 12

Shapes: B users, F features, K sums, T trees of each, M = K · T, N nodes of a tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_TOGETHER = 512
_LEAF = np.inf  # a threshold that sends everybody left, which in a leaf is the leaf itself


class Forest(nn.Module):
    """K sums of T regression trees each; a tree that was never set adds nothing.

    Args:
        leaves: the most that a tree may have, and so its N = 2 · leaves - 1 nodes.
        depth: the most decisions between a root and a leaf.
    """

    def __init__(self, *, num: int, trees: int, leaves: int, depth: int):
        super().__init__()
        self.depth = depth
        shape = (num, trees, 2 * leaves - 1)
        self.feature_KTN: Tensor
        self.threshold_KTN: Tensor
        self.left_KTN: Tensor
        self.right_KTN: Tensor
        self.value_KTN: Tensor
        for name in ("feature_KTN", "left_KTN", "right_KTN"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("threshold_KTN", torch.full(shape, _LEAF))
        self.register_buffer("value_KTN", torch.zeros(shape))

    def set(self, k: int, roots: Sequence[Mapping[str, Any]]) -> None:
        """Make the trees below ``roots`` the k-th sum.

        Args:
            roots: ``tree_structure`` of each tree as LightGBM's ``dump_model`` tells it.

        Raises:
            ValueError: more trees, nodes or depth than there is room for, or splits by category.
        """
        T, N = self.value_KTN.shape[1:]
        if len(roots) > T:
            raise ValueError(f"roots: expected at most trees={T}, got {len(roots)}")
        for name in ("feature_KTN", "left_KTN", "right_KTN", "value_KTN"):
            getattr(self, name)[k] = 0
        self.threshold_KTN[k] = _LEAF
        for t, root in enumerate(roots):
            nodes: list[tuple[int, float, int, int, float]] = []
            _flatten(root, nodes, self.depth)
            if len(nodes) > N:
                raise ValueError(f"roots[{t}]: expected at most {N} nodes, got {len(nodes)}")
            columns = zip(*nodes, strict=True)
            names = ("feature_KTN", "threshold_KTN", "left_KTN", "right_KTN", "value_KTN")
            for name, column in zip(names, columns, strict=True):
                buffer = getattr(self, name)
                buffer[k, t, : len(nodes)] = torch.tensor(column, dtype=buffer.dtype)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Each sum for each user, float32 [B, K]."""
        # Some users at a time: every decision of every tree is looked up for each of them.
        parts = [self._sums(part) for part in features_BF.split(_TOGETHER)]
        return torch.cat(parts) if parts else features_BF.new_zeros(0, len(self.value_KTN))

    def _sums(self, features_BF: Tensor) -> Tensor:
        K, T, N = self.value_KTN.shape
        feature, left, right = (
            buffer.reshape(-1).long()
            for buffer in (self.feature_KTN, self.left_KTN, self.right_KTN)
        )  # fmt: skip
        threshold = self.threshold_KTN.reshape(-1)
        root_M = torch.arange(K * T, device=features_BF.device) * N
        at_BM = root_M.expand(len(features_BF), K * T)
        for _ in range(self.depth):
            goes_left = features_BF.gather(1, feature[at_BM]) <= threshold[at_BM]
            at_BM = root_M + torch.where(goes_left, left[at_BM], right[at_BM])
        return self.value_KTN.reshape(-1)[at_BM].reshape(len(features_BF), K, T).sum(2)


def _flatten(
    node: Mapping[str, Any], nodes: list[tuple[int, float, int, int, float]], depth: int
) -> int:
    """Append a node and all below it; where it stands. A leaf is its own left child."""
    here = len(nodes)
    if "leaf_value" in node:
        nodes.append((0, _LEAF, here, here, float(node["leaf_value"])))
        return here
    if node["decision_type"] != "<=":
        raise ValueError(f"roots: expected numeric splits (<=), got {node['decision_type']!r}")
    if depth < 1:
        raise ValueError("roots: expected no tree deeper than `depth`")
    nodes.append((0, _LEAF, here, here, 0.0))
    left = _flatten(node["left_child"], nodes, depth - 1)
    right = _flatten(node["right_child"], nodes, depth - 1)
    nodes[here] = (node["split_feature"], _below(node["threshold"]), left, right, 0.0)
    return here


def _below(threshold: float) -> float:
    """The largest float32 up to a float64: float32 features fall on the same side of both."""
    near = np.float32(threshold)
    return float(near if float(near) <= threshold else np.nextafter(near, np.float32(-np.inf)))
