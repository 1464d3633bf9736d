"""The whole FOUND model: modality encoders, fusion, text tower, and their alignment (4.3).

A user's fused vector from the past meets sentences about the future under InfoNCE (eq. 15). With
``similarity="cosine"`` as in the paper, both sides have unit length; with ``"dot"`` the user's
vector keeps its length, which can then carry overall activity, and indexes rank by inner product.

Shapes: B users, S sentences, J width of the joint space, D of the fused vector, M modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders import losses
from encoders.assortment import Assortment, AssortmentConfig
from encoders.batch import UserBatch
from encoders.behaviour import BehaviourConfig, BehaviourEncoder
from encoders.distributed import gather_with_grad
from encoders.feedback import Feedback, FeedbackConfig
from encoders.fusion import Concatenation, Fusion
from encoders.habits import HabitConfig, HabitEncoder
from encoders.layers import ResidualMlp
from encoders.pairs import PairBatch
from encoders.search import SearchConfig, SearchEncoder
from encoders.tabular import TabularConfig, TabularEncoder
from encoders.text import TextConfig, TextTower

_ORDER_WEIGHT = 0.2  # of the order of users against the fit of each pair
_TOGETHER = 64  # sentences in one pass

MODALITIES = ("behaviour", "tabular", "search")


@dataclass(frozen=True)
class AlignmentConfig:
    """Which modalities, how they are fused, and the geometry of the joint space."""

    behaviour: BehaviourConfig | None = field(default_factory=BehaviourConfig)
    tabular: TabularConfig | None = None
    search: SearchConfig | None = None
    text: TextConfig = field(default_factory=TextConfig)
    windows: int = 26  # W, how many weekly windows of the past a user vector reads
    fusion: Literal["attention", "concatenation"] = "attention"
    fusion_dim: int = 192
    fusion_layers: int = 2
    fusion_heads: int = 4
    dropout: float = 0.1
    habits: HabitConfig | None = None  # aggregates beside the modalities, added after fusion
    assortment: AssortmentConfig | None = None  # a second block of the fused vector
    feedback: FeedbackConfig | None = None  # of the past, on sentences about its subjects
    objective: Literal["infonce", "intents"] = "infonce"
    similarity: Literal["dot", "cosine"] = "dot"
    temperature: float = 0.07  # of eq. 15, which has none (1)
    learn_temperature: bool = True  # start from it instead of keeping it
    symmetric: bool = True  # eq. 15 contrasts a user among sentences; also a sentence among users

    def __post_init__(self) -> None:
        for name, kind in (
            ("behaviour", BehaviourConfig), ("tabular", TabularConfig),
            ("search", SearchConfig), ("text", TextConfig), ("habits", HabitConfig),
            ("assortment", AssortmentConfig), ("feedback", FeedbackConfig),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, dict):  # read back from JSON
                object.__setattr__(self, name, kind(**value))
        if self.habits is not None and self.habits.width != self.text.dim:
            raise ValueError(
                f"habits.width={self.habits.width} must be text.dim={self.text.dim}: habits are "
                "read through sentence vectors"
            )
        if self.objective not in ("infonce", "intents"):
            raise ValueError(f"objective must be 'infonce' or 'intents', got {self.objective!r}")
        if self.similarity not in ("dot", "cosine"):
            raise ValueError(f"similarity must be 'dot' or 'cosine', got {self.similarity!r}")
        if self.assortment is not None and self.similarity == "cosine":
            raise ValueError("assortment: needs similarity='dot', a cosine would read it")
        if self.feedback is not None and self.similarity == "cosine":
            raise ValueError("feedback: needs similarity='dot', its scores are sums of two")
        if self.fusion not in ("attention", "concatenation"):
            raise ValueError(f"fusion must be 'attention' or 'concatenation', got {self.fusion!r}")
        if self.behaviour is None and self.tabular is None and self.search is None:
            raise ValueError("expected at least one of behaviour, tabular and search")
        if self.behaviour is not None and self.windows > self.behaviour.windows:
            raise ValueError(
                f"windows={self.windows} must be at most behaviour.windows={self.behaviour.windows}"
            )


def _feedback(config: AlignmentConfig) -> Feedback | None:
    return None if config.feedback is None else Feedback(config.feedback, config.text.dim)


class FoundModel(nn.Module):
    """Users and sentences in one space."""

    config_class = AlignmentConfig

    def __init__(self, config: AlignmentConfig):
        super().__init__()
        self.config = config
        self.behaviour = None if config.behaviour is None else BehaviourEncoder(config.behaviour)
        self.tabular = None if config.tabular is None else TabularEncoder(config.tabular)
        self.search = None if config.search is None else SearchEncoder(config.search)
        for encoder in (self.behaviour, self.tabular, self.search):
            if encoder is not None:
                for parameter in encoder.objective_parameters():
                    parameter.requires_grad_(False)
        widths = [] if config.behaviour is None else [config.behaviour.dim]
        widths += [] if config.tabular is None else [config.tabular.out_dim]
        widths += [] if config.search is None else [config.search.out_dim]
        self.fusion: nn.Module
        if config.fusion == "concatenation":
            self.fusion = Concatenation(widths=widths, out_dim=config.text.dim)
        else:
            self.fusion = Fusion(
                widths=widths, dim=config.fusion_dim, out_dim=config.text.dim,
                layers=config.fusion_layers, heads=config.fusion_heads, dropout=config.dropout,
            )  # fmt: skip
        self.habits = None if config.habits is None else HabitEncoder(config.habits)
        self.assortment = None if config.assortment is None else Assortment(config.assortment)
        self.text = TextTower(config.text)
        self.feedback = _feedback(config)
        if config.objective == "intents":
            width = self.text.whiten.mean_E.shape[0]
            self.base_rate = nn.Linear(width, 1)  # log-odds of a sentence, from its words
            self.fit_scale = nn.Parameter(torch.zeros(()))
            nn.init.zeros_(self.base_rate.weight)
        self.log_scale = nn.Parameter(
            torch.tensor(1.0 / config.temperature).log(), requires_grad=config.learn_temperature
        )

    @torch.no_grad()
    def start_aligned(self) -> None:
        """Start both sides with one projection, so that a line and a sentence about it are close.

        Words mean the same on either side before anything is learnt. Needs equal widths; without
        them the sides start at random.
        """
        if self.habits is not None:
            nn.init.zeros_(self.fusion.out.weight)  # habits speak first, in the words themselves
            nn.init.zeros_(self.fusion.out.bias)
            return
        read = self.config.behaviour
        if read is None or read.window_encoder != "lines" or not isinstance(self.fusion, Fusion):
            return
        if not isinstance(self.text.project, ResidualMlp):
            return
        lines = self.behaviour.sources["bill"].linear.weight
        words = self.text.project.linear.weight
        out = self.fusion.out.weight
        if lines.shape == words.shape and out.shape[0] == out.shape[1]:
            words.copy_(lines)
            nn.init.eye_(out)

    @property
    def dim(self) -> int:
        """D, width of fused vectors and queries: the joint space and what stands beside it."""
        beside = self.config.assortment
        return self.config.text.dim + (0 if beside is None else beside.dim)

    @property
    def scale(self) -> float:
        """What an inner product is multiplied by to be of the size of log-odds."""
        fit_scale = self.fit_scale if self.config.objective == "intents" else 0.0
        return float((self.log_scale + fit_scale).detach().exp())

    def modalities(self, batch: UserBatch) -> dict[str, Tensor]:
        """Each modality's own vectors, [B, width] by name; only the modalities of this model."""
        vectors: dict[str, Tensor] = {}
        if self.behaviour is not None:
            vectors["behaviour"] = self.behaviour(batch)
        if self.tabular is not None:
            vectors["tabular"] = self.tabular(batch)
        if self.search is not None:
            vectors["search"] = self.search(batch)
        return vectors

    def joint(self, vectors: dict[str, Tensor], batch: UserBatch) -> Tensor:
        """The modalities' vectors fused in the joint space, [B, J] (eq. 13)."""
        columns = [MODALITIES.index(name) for name in vectors]
        joint_BJ = self.fusion(list(vectors.values()), batch.present_BM[:, columns])
        if self.config.habits is not None and self.habits is not None and batch.habits is not None:
            whitened_VE = self.text.whiten(batch.habits.subjects_VE)
            profile_BP = batch.values_BF[:, : self.config.habits.profile_width]
            joint_BJ = joint_BJ + self.habits(batch.habits, whitened_VE, profile_BP)
        if self.config.similarity == "cosine":
            return functional.normalize(joint_BJ, dim=-1)
        return joint_BJ

    def fuse(self, vectors: dict[str, Tensor], batch: UserBatch) -> Tensor:
        """Fused user vectors, [B, D]: those of the joint space, and the assortment beside them.

        A batch that was collated without assortment has 0 there.
        """
        joint_BJ = self.joint(vectors, batch)
        if self.assortment is None or batch.assortment is None:
            return functional.pad(joint_BJ, (0, self.dim - joint_BJ.shape[1]))
        return torch.cat([joint_BJ, self.assortment(batch.assortment)], 1)

    def forward(self, batch: UserBatch) -> Tensor:
        """Fused user vectors, [B, D]."""
        return self.fuse(self.modalities(batch), batch)

    @torch.no_grad()
    def match_assortment(self, batch: UserBatch) -> None:
        """Bring the block beside the joint space to its size, once that is trained."""
        if self.assortment is not None and batch.assortment is not None:
            self.assortment.match(self.joint(self.modalities(batch), batch), batch.assortment)

    def sentences(self, tokens: dict[str, Tensor]) -> Tensor:
        """Unit vectors of sentences, [S, D] (eq. 14); 0 beside the joint space."""
        unit_SJ = functional.normalize(self.text(tokens), dim=-1)
        return functional.pad(unit_SJ, (0, self.dim - unit_SJ.shape[1]))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Query vectors: the score of a user is the inner product with the user's vector."""
        query_SD = self.sentences(self.text.tokenize(texts))
        if self.feedback is not None:
            query_SD[:, : self.config.text.dim] += self.feedback(texts)
        return query_SD

    @torch.no_grad()
    def learn_from_past(
        self, config: FeedbackConfig, users_UJ: Tensor, counts_US: Tensor, trained_S: Tensor
    ) -> None:
        """Give ``config.sentences`` feedback, once the joint space is trained."""
        self.config = replace(self.config, feedback=None)
        self.feedback = None
        parts = [config.sentences[n : n + _TOGETHER]
                 for n in range(0, len(config.sentences), _TOGETHER)]  # fmt: skip
        words_SJ = torch.cat([self.encode_text(part).cpu() for part in parts])
        self.config = replace(self.config, feedback=config)
        self.feedback = _feedback(self.config)
        assert self.feedback is not None
        width = self.config.text.dim
        self.feedback.fit(users_UJ, counts_US, words_SJ[:, :width], trained_S)

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE (eq. 15), or the fit and the order of intents, over all workers' pairs."""
        users_BJ = gather_with_grad(self.joint(self.modalities(batch.users), batch.users))
        read_SE = self.text.read(batch.tokens)
        text_SJ = gather_with_grad(functional.normalize(self.text.project(read_SE), dim=-1))
        scaled_BS = users_BJ @ text_SJ.T * self.log_scale.exp()
        if self.config.objective == "infonce":
            fits_BS = batch.label_BS > 0
            total = losses.alignment(scaled_BS, fits_BS, symmetric=self.config.symmetric)
            return total, {"infonce": total, "scale": self.log_scale.exp().detach()}
        base_rate_S = gather_with_grad(self.base_rate(read_SE)).squeeze(-1)
        fit, order = losses.intents(
            scaled_BS, label_BS=batch.label_BS, base_rate_S=base_rate_S,
            weight_S=batch.weight_S, fit_scale=self.fit_scale.exp(),
        )  # fmt: skip
        total = fit + _ORDER_WEIGHT * order
        return total, {"fit": fit, "order": order}
