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

from encoders.layers import Whiten

_SHRINK = 0.01
_ROUNDS = 50


class ProductWords(nn.Module):
    """A fitted code book: empty before :meth:`fit`."""

    words_KH: Tensor

    def __init__(self, width: int, words: int):
        super().__init__()
        self.whiten = Whiten(width, shrink=_SHRINK)
        self.register_buffer("words_KH", torch.zeros(words, width))

    def forward(self, products_VH: Tensor) -> Tensor:
        """The word of each product, int64 [V]."""
        white_VH = self.whiten(products_VH.float())
        return (white_VH @ self.words_KH.T - self.words_KH.square().sum(1) / 2).argmax(1)

    @torch.no_grad()
    def fit(self, products_VH: Tensor, uses_V: Tensor) -> None:
        """Find the words. A product weighs the logarithm of its purchases ``uses_V``.

        With fewer distinct products than words, the words left over are nobody's.
        """
        bought = uses_V > 0
        weight_V, products_VH = uses_V[bought].float().log1p(), products_VH[bought].float()
        if not len(products_VH):
            return
        self.whiten.fit(products_VH, weight_V)
        points = self.whiten(products_VH).numpy()
        distinct = len(np.unique(points.round(4), axis=0))
        found = KMeans(
            min(len(self.words_KH), distinct), n_init=1, max_iter=_ROUNDS, random_state=0
        ).fit(points, sample_weight=weight_V.numpy())
        self.words_KH.fill_(_FAR)
        self.words_KH[: found.n_clusters] = torch.from_numpy(found.cluster_centers_)


_FAR = 1e4  # a place that no whitened product is near
