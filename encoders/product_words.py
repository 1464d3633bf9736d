"""Product words: how much of each kind of product a log holds, by a code book of product vectors.

A bag of features (Sivic and Zisserman, 2003): product vectors (eq. 1 of One4all) are whitened,
k-means finds the words, and a product is the word that it is nearest to. A word is a kind of
product that the model tells apart from others by category and text alike; a product that training
never saw has one too. Not from One4all (docs/decisions/shopper-bert.md).

Shapes: V products, H width, K words.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

_SHRINKAGE = 0.01  # of the variances towards their mean: rare directions are mostly noise
_ROUNDS = 50


class ProductWords(nn.Module):
    """A fitted code book: empty before :meth:`fit`."""

    mean_H: Tensor
    white_HH: Tensor
    words_KH: Tensor

    def __init__(self, width: int, words: int):
        super().__init__()
        self.register_buffer("mean_H", torch.zeros(width))
        self.register_buffer("white_HH", torch.eye(width))
        self.register_buffer("words_KH", torch.zeros(words, width))

    def forward(self, products_VH: Tensor) -> Tensor:
        """The word of each product, int64 [V]."""
        white_VH = (products_VH.float() - self.mean_H) @ self.white_HH
        return (white_VH @ self.words_KH.T - self.words_KH.square().sum(1) / 2).argmax(1)

    @torch.no_grad()
    def fit(self, products_VH: Tensor, uses_V: Tensor) -> None:
        """Find the words. A product weighs the logarithm of its purchases ``uses_V``.

        With fewer distinct products than words, the words left over are nobody's.
        """
        bought = uses_V > 0
        weight_V = uses_V[bought].double().log1p()
        products = products_VH[bought].double()
        if not len(products):
            return
        mean = (weight_V[:, None] * products).sum(0) / weight_V.sum()
        centred = products - mean
        covariance = (weight_V[:, None] * centred).T @ centred / weight_V.sum()
        variance_H, axes_HH = torch.linalg.eigh(covariance)
        level = (variance_H + _SHRINKAGE * variance_H.mean()).clamp(min=1e-12)
        white = axes_HH @ torch.diag(level.rsqrt()) @ axes_HH.T
        points = (centred @ white).numpy()
        distinct = len(np.unique(points.round(6), axis=0))
        found = KMeans(
            min(len(self.words_KH), distinct), n_init=1, max_iter=_ROUNDS, random_state=0
        ).fit(points, sample_weight=weight_V.numpy())
        self.mean_H.copy_(mean)
        self.white_HH.copy_(white)
        self.words_KH.fill_(_FAR)
        self.words_KH[: found.n_clusters] = torch.from_numpy(found.cluster_centers_)


_FAR = 1e4  # a place that no whitened product is near
