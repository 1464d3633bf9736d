"""A small ALBERT over rows of word pieces, trained from scratch (g_ν of eq. 5, f_ω of eq. 12).

No pre-trained ALBERT ships as a package; the vocabulary is that of MiniLM's tokenizer. Layers
share their weights, and word vectors are narrower than the layers: that is what makes it light.

Shapes: N texts, L tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AlbertConfig, AlbertModel

PAD, MASK = 0, 103  # of the MiniLM (BERT uncased) vocabulary


def albert_config(
    *, vocabulary: int, dim: int, layers: int, heads: int, embedding_dim: int, max_tokens: int,
    segments: int = 1,
) -> AlbertConfig:  # fmt: skip
    """Sizes of an ALBERT.

    Args:
        segments: how many kinds of token a text may mix, each with a vector of its own.
    """
    return AlbertConfig(
        vocab_size=vocabulary, embedding_size=embedding_dim, hidden_size=dim,
        num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=2 * dim,
        max_position_embeddings=max_tokens, pad_token_id=PAD, type_vocab_size=segments,
    )  # fmt: skip


def contextual(
    albert: AlbertModel, tokens_NL: Tensor, mask_NL: Tensor, segments_NL: Tensor | None = None
) -> Tensor:
    """Contextual token vectors, [N, L, D]; an empty text attends to one token of padding.

    Attention over nothing would be undefined.
    """
    attended = mask_NL.clone()
    attended[:, 0] = True
    segments = torch.zeros_like(tokens_NL) if segments_NL is None else segments_NL
    hidden: Tensor = albert(
        tokens_NL, attention_mask=attended.long(), token_type_ids=segments
    ).last_hidden_state
    return hidden
