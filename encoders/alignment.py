"""The whole FOUND model: modality encoders, fusion, text tower, and their alignment (4.3).

A user's fused vector from the past meets sentences about the future under InfoNCE (eq. 15). With
``similarity="cosine"`` as in the paper, both sides have unit length; with ``"dot"`` the user's
vector keeps its length, which can then carry overall activity, and indexes rank by inner product.

Shapes: B users, S sentences, J width of the joint space, D of the fused vector, M modalities.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

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
from encoders.habit_counts import NUM_USER_FEATURES
from encoders.habits import HabitConfig, HabitEncoder
from encoders.layers import ResidualMlp
from encoders.outlook import Outlook, OutlookConfig
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
    fusion_start: Literal["random", "even"] = "random"  # even: see encoders.fusion
    dropout: float = 0.1
    habits: HabitConfig | None = None  # aggregates beside the modalities, added after fusion
    outlook: OutlookConfig | None = None  # overall behaviour, axes beside the joint space
    assortment: AssortmentConfig | None = None  # a last block of the fused vector
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
            ("outlook", OutlookConfig), ("assortment", AssortmentConfig),
            ("feedback", FeedbackConfig),
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
        for name in ("feedback", "outlook"):
            if getattr(self, name) is not None and self.similarity == "cosine":
                raise ValueError(f"{name}: needs similarity='dot', its scores are sums of two")
        if self.outlook is not None and self.habits is None:
            raise ValueError("outlook: needs habits, whose totals it reads")
        if self.fusion not in ("attention", "concatenation"):
            raise ValueError(f"fusion must be 'attention' or 'concatenation', got {self.fusion!r}")
        if self.fusion_start not in ("random", "even"):
            raise ValueError(f"fusion_start must be 'random' or 'even', got {self.fusion_start!r}")
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
        self.fusion: Fusion | Concatenation
        if config.fusion == "concatenation":
            self.fusion = Concatenation(
                widths=widths, out_dim=config.text.dim, start=config.fusion_start
            )
        else:
            self.fusion = Fusion(
                widths=widths, dim=config.fusion_dim, out_dim=config.text.dim,
                layers=config.fusion_layers, heads=config.fusion_heads, dropout=config.dropout,
                start=config.fusion_start,
            )  # fmt: skip
        self.habits = None if config.habits is None else HabitEncoder(config.habits)
        self.outlook = None if config.outlook is None else Outlook(config.outlook)
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
        assert self.behaviour is not None  # its config is there
        lines = self.behaviour.sources["bill"].linear.weight
        words = self.text.project.linear.weight
        out = self.fusion.out.weight
        if lines.shape == words.shape and out.shape[0] == out.shape[1]:
            words.copy_(lines)
            nn.init.eye_(out)

    @torch.no_grad()
    def start_even(self, batches: Iterable[UserBatch]) -> None:
        """Let fusion learn the modalities' moments from some users, where it starts from those."""
        parts = []
        for batch in batches:
            vectors = self.modalities(batch)
            parts.append([*vectors.values(), self._present(vectors, batch)])
        *vectors_M, present_BM = [torch.cat(part) for part in zip(*parts, strict=True)]
        self.fusion.fit(vectors_M, present_BM)

    @property
    def dim(self) -> int:
        """D, width of fused vectors and queries: the joint space and what stands beside it."""
        beside = self.config.assortment
        return self.asked_dim + (0 if beside is None else beside.dim)

    @property
    def asked_dim(self) -> int:
        """How many of the first coordinates sentences can read: the joint space and the outlook."""
        return self.config.text.dim + (0 if self.outlook is None else self.outlook.num)

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
        joint_BJ = self.fusion(list(vectors.values()), self._present(vectors, batch))
        if self.config.habits is not None and self.habits is not None and batch.habits is not None:
            whitened_VE = self.text.whiten(batch.habits.subjects_VE)
            profile_BP = batch.values_BF[:, : self.config.habits.profile_width]
            codes_BC = batch.codes_BC[:, : len(self.config.habits.profile_sizes)]
            joint_BJ = joint_BJ + self.habits(batch.habits, whitened_VE, profile_BP, codes_BC)
        if self.config.similarity == "cosine":
            return functional.normalize(joint_BJ, dim=-1)
        return joint_BJ

    @staticmethod
    def _present(vectors: dict[str, Tensor], batch: UserBatch) -> Tensor:
        """Who has which of these modalities, bool [B, M]."""
        return batch.present_BM[:, [MODALITIES.index(name) for name in vectors]]

    def fuse(self, vectors: dict[str, Tensor], batch: UserBatch) -> Tensor:
        """Fused user vectors, [B, D]: the joint space, the outlook and the assortment beside it.

        A batch that was collated without assortment has 0 there.
        """
        blocks = [self.joint(vectors, batch)]
        if self.outlook is not None:
            blocks.append(self.outlook(self.totals(batch)))
        if self.assortment is not None and batch.assortment is not None:
            blocks.append(self.assortment(batch.assortment))
        fused_BD = torch.cat(blocks, 1)
        return functional.pad(fused_BD, (0, self.dim - fused_BD.shape[1]))

    def totals(self, batch: UserBatch) -> Tensor:
        """What the outlook reads: a user's profile and habits in numbers, [B, F]."""
        assert self.config.habits is not None
        profile_BP = batch.values_BF[:, : self.config.habits.profile_width]
        if batch.habits is None:  # nobody has done anything yet
            users_BU = profile_BP.new_zeros(len(profile_BP), NUM_USER_FEATURES)
        else:
            users_BU = batch.habits.users_BU
        return torch.cat([profile_BP, users_BU], 1)

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
        query_SJ = self.sentences(self.text.tokenize(texts))[:, : self.config.text.dim]
        if self.feedback is not None:
            query_SJ = query_SJ + self.feedback(texts)
        if self.outlook is not None:
            query_SJ = self.outlook.read(texts, query_SJ)
        return functional.pad(query_SJ, (0, self.dim - query_SJ.shape[1]))

    @torch.no_grad()
    def level(self, texts: Sequence[str]) -> Tensor:
        """What users' mean score lost by feedback and outlook, [S]: not so in their log-odds."""
        lost_S = torch.zeros(len(texts))
        for part in (self.feedback, self.outlook):
            if part is not None:
                lost_S = lost_S + part.level(texts)
        return lost_S

    @torch.no_grad()
    def learn_from_past(
        self, config: FeedbackConfig, users_UJ: Tensor, counts_US: Tensor, trained_S: Tensor,
        shown_US: Tensor,
    ) -> None:  # fmt: skip
        """Give ``config.sentences`` feedback, once the joint space is trained.

        Arguments as those of :meth:`Feedback.fit`.
        """
        self.config = replace(self.config, feedback=None)
        self.feedback = None
        self._forget_outlook()
        words_SJ = self._own_vectors(config.sentences)
        self.config = replace(self.config, feedback=config)
        self.feedback = _feedback(self.config)
        assert self.feedback is not None
        self.feedback.fit(users_UJ, counts_US, words_SJ, trained_S, shown_US)

    @torch.no_grad()
    def learn_outlook(
        self, config: OutlookConfig, roots: Sequence[Sequence[Mapping[str, Any]]],
        totals_UF: Tensor, users_UJ: Tensor,
    ) -> None:  # fmt: skip
        """Give the model axes for ``config.sentences``, once all else is trained.

        Args:
            roots: of each sentence's trees (see :meth:`Forest.set`).
            totals_UF: of the users whose vectors are ``users_UJ``.
        """
        self._forget_outlook()
        queries_KJ = self._own_vectors(config.sentences)
        self.config = replace(self.config, outlook=config)
        self.outlook = Outlook(config)
        for k, trees in enumerate(roots):
            self.outlook.forest.set(k, trees)
        self.outlook.fit(totals_UF, users_UJ, queries_KJ)

    def _forget_outlook(self) -> None:
        """Back to no axes: what they were is learnt anew whenever the joint space is."""
        if self.config.outlook is not None:
            unfitted = replace(self.config.outlook, sentences=())
            self.config = replace(self.config, outlook=unfitted)
            self.outlook = Outlook(unfitted)

    def _own_vectors(self, texts: Sequence[str]) -> Tensor:
        """Vectors of sentences in the joint space alone, [S, J], on the CPU."""
        parts = [texts[n : n + _TOGETHER] for n in range(0, len(texts), _TOGETHER)]
        width = self.config.text.dim
        return torch.cat([self.encode_text(part)[:, :width].cpu() for part in parts])

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE (eq. 15), or the fit and the order of intents, over all workers' pairs."""
        users_BJ = gather_with_grad(self.joint(self.modalities(batch.users), batch.users))
        read_SE = self.text.read(batch.tokens)
        text_SJ = gather_with_grad(functional.normalize(self.text.project(read_SE), dim=-1))
        with torch.autocast(users_BJ.device.type, enabled=False):  # bfloat16 rounds to 1/256
            scaled_BS = users_BJ.float() @ text_SJ.float().T * self.log_scale.exp()
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
