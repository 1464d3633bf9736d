"""A small causal language model with LoRA that answers a demand with a sentence of the templates.

Trained in two stages (FOUND 4.4.1): conversations about the catalogue, then demand → answer pairs
(``ray_jobs/tune_rewriter.py``). Only the answers are learnt; what is asked is given.

Shapes: N dialogues, L tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.language_model import SMOLLM2, load_decoder
from encoders.lora import add_lora

_IGNORED = -100
Turn = tuple[str, str]
"""What is asked and what is answered."""


@dataclass(frozen=True)
class RewriterConfig:
    """Which language model, and how much of it is tuned."""

    model: str = SMOLLM2
    lora_rank: int = 8
    lora_alpha: int = 16
    max_tokens: int = 96  # of a dialogue in training
    max_answer: int = 32


@dataclass(frozen=True)
class Dialogues:
    """Token ids of dialogues, right-padded; ``target_NL`` is -100 outside the answers."""

    ids_NL: Tensor
    mask_NL: Tensor
    target_NL: Tensor

    def to(self, device: torch.device | str) -> Dialogues:
        """The same batch on another device."""
        return Dialogues(self.ids_NL.to(device), self.mask_NL.to(device), self.target_NL.to(device))


class RewriterModel(nn.Module):
    """Demand in, template sentence out."""

    config_class = RewriterConfig

    def __init__(self, config: RewriterConfig):
        super().__init__()
        self.config = config
        self.tokenizer, model = load_decoder(config.model)
        self.decoder = add_lora(model, rank=config.lora_rank, alpha=config.lora_alpha)

    def dialogues(self, dialogues: Sequence[Sequence[Turn]]) -> Dialogues:
        """Tokens of dialogues of one turn or several, cut at ``max_tokens``."""
        rows = [self._tokens(turns) for turns in dialogues]
        longest = max(len(ids) for ids, _ in rows)
        ids_NL = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
        target_NL = torch.full_like(ids_NL, _IGNORED)
        mask_NL = torch.zeros_like(ids_NL)
        for n, (ids, target) in enumerate(rows):
            ids_NL[n, : len(ids)] = torch.tensor(ids)
            target_NL[n, : len(ids)] = torch.tensor(target)
            mask_NL[n, : len(ids)] = 1
        return Dialogues(ids_NL, mask_NL, target_NL)

    def forward(self, batch: Dialogues) -> Tensor:
        """Logits of the next token, [N, L, V]."""
        return self.decoder(input_ids=batch.ids_NL, attention_mask=batch.mask_NL).logits

    def loss(self, batch: Dialogues) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the answers' tokens."""
        logits_NLV, target_NL = self.forward(batch)[:, :-1], batch.target_NL[:, 1:]
        total = functional.cross_entropy(
            logits_NLV.flatten(0, 1), target_NL.flatten(), ignore_index=_IGNORED
        )
        return total, {"answer": total}

    @torch.inference_mode()
    def answer(self, asked: str) -> str:
        """The greedy answer to one question."""
        ids = torch.tensor([self._prompt(asked)])
        limit = self.config.max_answer
        written = self.decoder.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit,
            do_sample=False, pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )  # fmt: skip
        text: str = self.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
        return text.strip()

    def _prompt(self, asked: str) -> list[int]:
        text = f"Question: {' '.join(asked.split())}\nAnswer:"
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _tokens(self, turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        target: list[int] = []
        for asked, answered in turns:
            question = self._prompt(asked)
            answer = self.tokenizer(f" {answered}", add_special_tokens=False)["input_ids"]
            answer = [*answer, self.tokenizer.eos_token_id]
            ids += question + answer
            target += [_IGNORED] * len(question) + answer
        return ids[: self.config.max_tokens], target[: self.config.max_tokens]
