"""Few-shot targeting: a sentence sharpened by a few seed users (FOUND 4.4.2).

As in the paper, learnable prompt tokens stand before the sentence, a triplet loss over positive and
negative seeds trains them (eq. 16), and everything else stays frozen, LoRA included. Beyond it, the
query can be moved in closed form (``encoders.posterior``). Either way the result is one query
vector in the space of the users, which ranks them wherever a sentence's does.

    prompt = tune(model, "will buy cheese", positives_PD, negatives_ND, population_UD)
    scores_U = population_UD @ prompt.query_D

Eq. 16 compares distances, this project's default similarity is an inner product. Each user vector
is therefore lifted to a sphere: one more coordinate, in which the query is 0, completes its length.
There the nearer user *is* the one with the higher score; plain distances reward short vectors.

Shapes: P, N seeds, U users, T prompt tokens, L tokens, E width of the language model, D of the
joint space, B prompts tuned at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from encoders import losses
from encoders.alignment import FoundModel
from encoders.posterior import Population, posterior_query
from encoders.text import TextTower

Floats = npt.NDArray[np.floating]
Method = Literal["posterior", "tokens"]


@dataclass(frozen=True)
class TuneConfig:
    """How seeds move a query."""

    method: Method = "posterior"
    # posterior
    belief: float = 1.0
    power: float = 0.0
    # tokens
    geometry: Literal["sphere", "cosine"] = "sphere"
    num_tokens: int = 8
    steps: int = 40
    learning_rate: float = 0.01
    margin: float = 0.2
    hardest: int | None = 5  # negatives nearest to the query that count at each step; None: all
    anchor: float = 1.0  # squared distance to the zero-shot query, against the mean triplet
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in ("posterior", "tokens"):
            raise ValueError(f"method must be 'posterior' or 'tokens', got {self.method!r}")
        if self.geometry not in ("sphere", "cosine"):
            raise ValueError(f"geometry must be 'sphere' or 'cosine', got {self.geometry!r}")
        for name in ("num_tokens", "steps", "hardest"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


PAPER = TuneConfig(method="tokens", geometry="cosine", hardest=None, anchor=0.0)
"""Eq. 16 and nothing else: unit vectors, all pairs of seeds, no pull towards the sentence."""
ANCHORED = TuneConfig(method="tokens")
"""Eq. 16 on the sphere, where distances rank as the inner product does, near the sentence; of the
negatives the hardest."""


@dataclass(frozen=True)
class Prompt:
    """A tuned query, and the tokens that say it (T = 0 where none were learnt)."""

    text: str
    tokens_TE: npt.NDArray[np.float32]
    query_D: npt.NDArray[np.float32]
    config: TuneConfig


def tune(
    model: FoundModel,
    text: str,
    positives_PD: Floats,
    negatives_ND: Floats,
    population_UD: Floats,
    config: TuneConfig | None = None,
    *,
    start_D: Floats | None = None,
    each_step: Callable[[], None] | None = None,
) -> Prompt:
    """Sharpen ``text`` by seed users' vectors. The same input gives the same prompt.

    Args:
        population_UD: the vectors that will be ranked; their moments set the scale.
        start_D: the query to start from, where the text was read as something else; default the
            text's own. The paper's tokens stand before the text itself, and do not take it.
        each_step: called before each step of learning tokens; what it raises ends it.

    Raises:
        ValueError: no positive or no negative seed, or vectors of another width.
    """
    positives, negatives = np.asarray(positives_PD)[None], np.asarray(negatives_ND)[None]
    starts_BD = None if start_D is None else np.asarray(start_D)[None]
    return tune_many(
        model, [text], positives, negatives, population_UD, config, starts_BD=starts_BD,
        each_step=each_step,
    )[0]  # fmt: skip


def tune_many(
    model: FoundModel,
    texts: Sequence[str],
    positives_BPD: Floats,
    negatives_BND: Floats,
    population_UD: Floats,
    config: TuneConfig | None = None,
    *,
    starts_BD: Floats | None = None,
    each_step: Callable[[], None] | None = None,
) -> list[Prompt]:
    """:func:`tune` for several sentences at once, each with as many seeds; for studies."""
    config = config or TuneConfig()
    for name, seeds in (("positives", positives_BPD), ("negatives", negatives_BND)):
        if seeds.ndim != 3 or seeds.shape[1] < 1 or seeds.shape[2] != model.dim:
            raise ValueError(
                f"{name}: expected at least one vector of {model.dim} numbers per sentence, "
                f"got the shape {list(seeds.shape[1:])}"
            )
    if config.method == "tokens":
        return _tune_tokens(
            model, texts, positives_BPD, negatives_BND, population_UD, config,
            each_step or _nothing,
        )  # fmt: skip
    population = Population.of(population_UD, power=config.power)
    no_tokens = np.zeros((0, model.text.embedding_width), np.float32)
    prompts = []
    for row, (text, positives, negatives) in enumerate(
        zip(texts, positives_BPD, negatives_BND, strict=True)
    ):
        zero_shot = model.encode_text([text])[0].numpy() if starts_BD is None else starts_BD[row]
        query = posterior_query(zero_shot, positives, negatives, population, belief=config.belief)
        prompts.append(Prompt(text, no_tokens, query, config))
    return prompts


class _Prefixed:
    """Sentences whose queries are a function of the prompt tokens before them."""

    def __init__(self, model: FoundModel, texts: Sequence[str]):
        self._model = model
        words = model.text.tokenize(texts)
        self._mask_BL = words["attention_mask"]
        with torch.no_grad():
            self._words_BLE = model.text.embed(words["input_ids"])

    def __call__(self, tokens_BTE: Tensor) -> Tensor:
        """Unit query vectors, [B, D]."""
        ones_BT = self._mask_BL.new_ones(tokens_BTE.shape[:2])
        return self._model.sentences(
            {
                "inputs_embeds": torch.cat([tokens_BTE, self._words_BLE], 1),
                "attention_mask": torch.cat([ones_BT, self._mask_BL], 1),
            }
        )


def _tune_tokens(
    model: FoundModel,
    texts: Sequence[str],
    positives_BPD: Floats,
    negatives_BND: Floats,
    population_UD: Floats,
    config: TuneConfig,
    each_step: Callable[[], None],
) -> list[Prompt]:
    place = _unit if config.geometry == "cosine" else _Sphere(population_UD)
    positives, negatives = place(positives_BPD), place(negatives_BND)
    prefixed = _Prefixed(model, texts)
    zero_shot_BD = model.encode_text(texts)
    tokens_BTE = _first_tokens(model.text, config).repeat(len(texts), 1, 1).requires_grad_()
    optimiser = torch.optim.Adam([tokens_BTE], lr=config.learning_rate)
    for _ in range(config.steps):
        each_step()
        query_BD = prefixed(tokens_BTE)
        hard = _hardest(query_BD, negatives, config.hardest)
        pairs = positives.shape[1] * hard.shape[1]
        loss_B = losses.triplet(_widened(query_BD, hard), positives, hard, margin=config.margin)
        away_B = (query_BD - zero_shot_BD).square().sum(-1)
        loss = (loss_B / pairs + config.anchor * away_B).sum()
        # Gradients of the tokens alone: the model is shared with whoever asks meanwhile.
        (tokens_BTE.grad,) = torch.autograd.grad(loss, [tokens_BTE])
        optimiser.step()
    with torch.no_grad():
        query_BD = prefixed(tokens_BTE)
    return [
        Prompt(text, tokens.numpy(), query.numpy(), config)
        for text, tokens, query in zip(texts, tokens_BTE.detach(), query_BD, strict=True)
    ]


def _nothing() -> None:
    """At each step, where nobody wants to know."""


def _first_tokens(tower: TextTower, config: TuneConfig) -> Tensor:
    """Where prompts start: around the mean word, so that they say nothing yet. [T, E]"""
    words = tower.embedding_weight()
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(config.num_tokens, words.shape[1], generator=generator)
    return words.mean(0) + 0.1 * words.std() * noise


def _hardest(query_BD: Tensor, negatives_BND: Tensor, count: int | None) -> Tensor:
    """The ``count`` negatives nearest to each query, or all of them. [B, count, D]"""
    if count is None:
        return negatives_BND
    with torch.no_grad():
        query_B1D = _widened(query_BD, negatives_BND)[:, None]
        far_BN = (query_B1D - negatives_BND).square().sum(-1)
        order = far_BN.argsort(dim=1, stable=True)[:, :count]
    return negatives_BND.gather(1, order[..., None].expand(-1, -1, negatives_BND.shape[-1]))


def _widened(query_BD: Tensor, users: Tensor) -> Tensor:
    """Queries with a 0 for the coordinate that the sphere adds to users, if it did."""
    return functional.pad(query_BD, (0, users.shape[-1] - query_BD.shape[-1]))


def _unit(vectors: Floats) -> Tensor:
    return functional.normalize(torch.tensor(np.asarray(vectors, np.float32)), dim=-1)


class _Sphere:
    """Users on a sphere around the origin: order by distance = order by inner product."""

    def __init__(self, population_UD: Floats):
        sample = population_UD[:: max(1, len(population_UD) // 20_000)]
        self._mean = np.asarray(sample.mean(0), np.float32)
        centred = np.linalg.norm(sample - self._mean, axis=1)
        self._scale = float(np.sqrt((centred**2).mean())) or 1.0
        self._radius = float(centred.max()) / self._scale

    def __call__(self, vectors: Floats) -> Tensor:
        scaled = torch.tensor((vectors - self._mean) / self._scale, dtype=torch.float32)
        square = scaled.square().sum(-1, keepdim=True)
        radius = max(self._radius**2, float(square.max()))
        return torch.cat([scaled, (radius - square).clamp(min=0.0).sqrt()], -1)
