"""Language models: a frozen sentence encoder for short texts, and the tunable text tower (eq. 14).

The language model is all-MiniLM-L6-v2, mean-pooled, by default; any other encoder or causal
decoder of text works where its files are present (``encoders.language_model``).
:class:`LineEncoder` embeds each distinct short text once and keeps the vectors on disk;
:class:`TextTower` is the language model with LoRA.

Shapes: N texts, L tokens, E width of the language model, D width of the joint space.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from encoders.language_model import MINILM, is_causal, load_language_model
from encoders.layers import NearIdentity, ResidualMlp, Whiten
from encoders.lora import add_lora


def mean_pool(hidden_NLE: Tensor, mask_NL: Tensor) -> Tensor:
    """Mean over the unmasked tokens: [N, L, E] and [N, L] → [N, E]."""
    weight_NL1 = mask_NL.unsqueeze(-1).to(hidden_NLE.dtype)
    return (hidden_NLE * weight_NL1).sum(1) / weight_NL1.sum(1).clamp(min=1.0)


def pool(hidden_NLE: Tensor, mask_NL: Tensor, *, causal: bool) -> Tensor:
    """A text's vector: the last real token's of a causal decoder, else the mean. [N, E]"""
    if not causal:
        return mean_pool(hidden_NLE, mask_NL)
    order_L = torch.arange(1, mask_NL.shape[1] + 1, device=mask_NL.device)
    last_N = (mask_NL * order_L).argmax(1)  # padding may stand on either side
    return hidden_NLE[torch.arange(len(last_N), device=mask_NL.device), last_N]


class LineEncoder:
    """Frozen sentence vectors of distinct short texts, each computed once; :meth:`save` keeps them.

    The cache is one Parquet file per model, keyed by the text itself; it holds nothing that
    depends on when or by whom a text was used.
    """

    def __init__(self, cache: Path | None = None, *, model: str = MINILM, batch_size: int = 128):
        self._file = None if cache is None else cache / f"lines-{_slug(model)}.parquet"
        self._name = model
        self._batch_size = batch_size
        self._model: Any = None
        self._known: dict[str, int] = {}
        self._vectors = np.zeros((0, 0), np.float32)
        if self._file is not None and self._file.exists():
            table = pq.read_table(self._file)
            self._known = {text: i for i, text in enumerate(table["text"].to_pylist())}
            self._vectors = _matrix(table["vector"])
        self._num_saved = len(self._vectors)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of ``texts``, float32 [N, E]."""
        new = sorted({text for text in texts if text not in self._known})
        if new:
            vectors = self._embed(new)
            start = len(self._known)
            self._known.update({text: start + i for i, text in enumerate(new)})
            self._vectors = np.concatenate([self._vectors, vectors]) if start else vectors
        return self._vectors[[self._known[text] for text in texts]]

    def once(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors of texts that will not come again, float32 [N, E]; nothing is remembered."""
        return self._embed(list(texts))

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> np.ndarray:
        if self._model is None:
            self._tokenizer, self._model = load_language_model(self._name)
            self._model.eval()
            self._causal = is_causal(self._model)
        # Sorted by length: little padding, and the same set of texts always pads alike.
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), texts[i]))
        out: list[np.ndarray] = [np.zeros(0)] * len(texts)
        for start in range(0, len(order), self._batch_size):
            chunk = order[start : start + self._batch_size]
            tokens = self._tokenizer(
                [texts[i] for i in chunk], padding=True, truncation=True, max_length=64,
                return_tensors="pt",
            )  # fmt: skip
            ids_NL, mask_NL = tokens["input_ids"], tokens["attention_mask"]
            hidden = self._model(input_ids=ids_NL, attention_mask=mask_NL).last_hidden_state
            pooled = pool(hidden, mask_NL, causal=self._causal)
            for i, vector in zip(chunk, nn.functional.normalize(pooled, dim=-1), strict=True):
                out[i] = vector.numpy()
        return np.stack(out).astype(np.float32)

    def save(self) -> None:
        """Keep what is known on disk, in one atomic step; nothing is written if nothing is new."""
        if self._file is None or len(self._vectors) == self._num_saved:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        width = self._vectors.shape[1]
        flat = pa.array(self._vectors.reshape(-1), pa.float32())
        table = pa.table(
            {
                "text": pa.array(list(self._known), pa.string()),
                "vector": pa.FixedSizeListArray.from_arrays(flat, width),
            }
        )
        temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
        pq.write_table(table, temporary)
        temporary.replace(self._file)
        self._num_saved = len(self._vectors)


@dataclass(frozen=True)
class TextConfig:
    """The text tower: which language model, how it is tuned, how wide the joint space is."""

    model: str = MINILM
    dim: int = 256
    projection: Literal["mlp", "near_identity"] = "mlp"
    hidden: int = 512  # of "mlp", after the language model; 0 is a linear map
    rank: int = 48  # of "near_identity", which keeps the language model's width
    whiten: bool = True  # equalise the directions of its vectors
    shrink: float = 0.1  # of the whitening; less tells sentences further apart
    lora_rank: int = 8
    lora_alpha: int = 16
    max_tokens: int = 48


class TextTower(nn.Module):
    """Language model with LoRA, pooled and projected into the joint space (FOUND eq. 14).

    Encoders are mean-pooled; a causal decoder is pooled at its last token.
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.tokenizer, model = load_language_model(config.model)
        self.causal = is_causal(model)
        for each in model.modules():  # few adapters overfit little; its masks cost half a pass
            if isinstance(each, nn.Dropout):
                each.p = 0.0
        self.model = add_lora(model, rank=config.lora_rank, alpha=config.lora_alpha)
        self.whiten = Whiten(model.config.hidden_size, shrink=config.shrink)
        width = model.config.hidden_size
        self.project: nn.Module
        if config.projection == "near_identity":
            self.project = NearIdentity(width, rank=config.rank)
            bias = self.project.out.bias
        else:
            self.project = ResidualMlp(width, config.dim, hidden=config.hidden)
            bias = self.project.linear.bias
        # What all sentences share lets users differ in overall activity. Whitening took it out
        # of the input, so it starts in the bias, as long as the rest.
        if config.whiten:
            nn.init.normal_(bias, std=0.5)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and mask, [N, L] each, padded to the longest text and cut at ``max_tokens``."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.config.max_tokens,
            return_tensors="pt",
        )  # fmt: skip
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    @property
    def embedding_width(self) -> int:
        """E of the input embeddings."""
        return int(self.embedding_weight().shape[1])

    def embedding_weight(self) -> Tensor:
        """Input embeddings of the whole vocabulary, [words, E], detached."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight.detach()

    def embed(self, input_ids_NL: Tensor) -> Tensor:
        """Input embeddings of tokens, [N, L, E]: for whoever puts others before them."""
        embedded: Tensor = self.model.get_input_embeddings()(input_ids_NL)
        return embedded

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """Vectors in the joint space, [N, D], not normalised; ``tokens`` as :meth:`read` takes."""
        projected: Tensor = self.project(self.read(tokens))
        return projected

    def read(self, tokens: dict[str, Tensor]) -> Tensor:
        """The language model's own vectors, whitened, [N, E].

        Args:
            tokens: of :meth:`tokenize`; or the same with ``inputs_embeds`` [N, L, E] in place of
                ids; or ``{"pooled": [N, E]}``, the untuned language model's own vectors, which
                skips it.
        """
        if "pooled" in tokens:
            return self.whiten(tokens["pooled"])
        hidden_NLE = self.model(**tokens).last_hidden_state
        mask_NL = tokens["attention_mask"]
        pooled = pool(hidden_NLE, mask_NL, causal=self.causal)
        return self.whiten(nn.functional.normalize(pooled, dim=-1))


def _matrix(column: pa.ChunkedArray) -> np.ndarray:
    array = pc.cast(column, column.type).combine_chunks()
    return np.asarray(array.flatten()).reshape(len(array), -1)


def _slug(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12] if "/" in name else name
