"""Downstream models: what they read, what they share, what padding must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encoders import transfer
from encoders.logs import LogEmbedding, Logs
from encoders.transfer import FineTuned, Inputs, LogTransformer, PTrans, Recommender, TTrans, UMlp

LENGTH, TEXTS = 6, 5


def logs(num: int = 3, *, length: int = LENGTH, seed: int = 0, categories: int = 2) -> Logs:
    draw = torch.Generator().manual_seed(seed)
    many = torch.tensor([length, 2, 0][:num])
    return Logs(
        torch.randint(1, 4, (num, length, categories), generator=draw),
        torch.randint(1, 4, (num, length, 1), generator=draw),
        torch.randint(0, TEXTS, (num, length), generator=draw),
        torch.arange(length) < many[:, None],
    )


def embedding(categories: int = 2) -> LogEmbedding:
    texts = torch.randn(TEXTS, 7, generator=torch.Generator().manual_seed(9))
    return LogEmbedding(
        categories=[4] * categories, dates=[4], texts_VE=texts, hidden=transfer.HIDDEN,
        length=LENGTH,
    )  # fmt: skip


def test_the_mlp_is_the_papers() -> None:
    widths = [m.out_features for m in UMlp(embedding_dim=550, out=1).head if hasattr(m, "weight")]
    activations = [m for m in UMlp(embedding_dim=550, out=1).head if not hasattr(m, "weight")]
    assert widths == [512, 256, 128, 64, 1]
    assert all(isinstance(each, nn.ReLU) for each in activations)


def test_an_event_is_the_mean_of_product_date_and_position() -> None:
    made, log = embedding(), logs()
    got = made(log)[0, 1]
    c, d = log.categories_NLC[0, 1], log.dates_NLD[0, 1, 0]
    parts = [made.categories[0](c[0]), made.categories[1](c[1]),
             made.text(made.texts_VE[log.texts_NL[0, 1]])]  # fmt: skip
    product = made.product(torch.cat(parts))
    expected = (product + made.dates[0](d) + made.position.weight[1]) / 3
    assert torch.allclose(got, expected, atol=1e-6)


@torch.no_grad()
def test_four_layers_of_the_same_weights_are_torchs_own() -> None:
    torch.manual_seed(0)
    model, log = LogTransformer(embedding()).eval(), logs()
    slow = nn.TransformerEncoderLayer(
        transfer.HIDDEN, transfer.HEADS, 4 * transfer.HIDDEN, batch_first=True
    ).eval()  # fmt: skip
    ours, theirs = model.layer, slow.self_attn
    pairs = {ours.out: theirs.out_proj, ours.wide: slow.linear1, ours.narrow: slow.linear2,
             ours.attended: slow.norm1, ours.done: slow.norm2}  # fmt: skip
    theirs.in_proj_weight.copy_(ours.into.weight)
    theirs.in_proj_bias.copy_(ours.into.bias)
    for one, other in pairs.items():
        other.load_state_dict(one.state_dict())
    first = model.cls.expand(3, 1, -1)
    states = model.norm(torch.cat([first, model.embedding(log)], 1))
    hidden = torch.cat([torch.zeros(3, 1, dtype=torch.bool), ~log.mask_NL], 1)
    for _ in range(4):
        states = slow(states, src_key_padding_mask=hidden)
    assert torch.allclose(model(log), states[:, 0], atol=1e-5)


@torch.no_grad()
def test_padding_and_the_company_of_longer_logs_change_nothing() -> None:
    torch.manual_seed(0)
    model = LogTransformer(embedding()).eval()
    log = logs()
    together = model(log)
    for row in range(3):
        alone = model(log.rows(torch.tensor([row])))
        assert torch.allclose(together[row], alone[0], atol=1e-5)
    assert log.rows(torch.tensor([1])).mask_NL.shape[1] == 2
    other = logs(seed=1)
    swapped = Logs(
        torch.where(log.mask_NL[..., None], log.categories_NLC, other.categories_NLC),
        torch.where(log.mask_NL[..., None], log.dates_NLD, other.dates_NLD),
        torch.where(log.mask_NL, log.texts_NL, other.texts_NL), log.mask_NL,
    )  # fmt: skip
    assert torch.allclose(model(swapped), together, atol=1e-5)


@torch.no_grad()
def test_each_model_reads_its_part_and_says_what_it_misses() -> None:
    torch.manual_seed(0)
    whole = Inputs(torch.randn(3, 5), logs(), logs(categories=0, seed=2), torch.arange(3))
    task = embedding(categories=0)
    models: dict[str, Any] = {
        "vectors_BU": UMlp(embedding_dim=5, out=2),
        "purchases": PTrans(embedding=embedding(), out=2),
        "task_log": TTrans(embedding=task, out=2),
        "users_B": FineTuned(encoder=Table(), out=2),
    }
    for name, model in models.items():
        got = model.eval()(whole)
        assert got.shape == (3, 2)
        picked = model(whole.rows(torch.tensor([2, 0])))
        assert torch.allclose(picked, got[[2, 0]], atol=1e-5)
        with pytest.raises(ValueError, match=name):
            model(Inputs())
    with pytest.raises(ValueError, match="vectors_BU"):
        PTrans(embedding=embedding(), out=2, embedding_dim=5)(Inputs(purchases=logs()))


@torch.no_grad()
def test_up_trans_puts_the_embedding_in_the_place_of_cls() -> None:
    torch.manual_seed(0)
    model = PTrans(embedding=embedding(), out=1, embedding_dim=5).eval()
    one, other = torch.randn(3, 5), torch.randn(3, 5)
    assert not torch.allclose(model(Inputs(one, logs())), model(Inputs(other, logs())))
    model.encoder.cls.fill_(7.0)
    before = model(Inputs(one, logs()))
    model.encoder.cls.fill_(-7.0)
    assert torch.equal(model(Inputs(one, logs())), before)


def test_a_score_is_the_dot_product_of_user_and_item() -> None:
    torch.manual_seed(0)
    texts, vectors = torch.randn(4, 7), torch.randn(3, 5)
    model = Recommender(UMlp(embedding_dim=5, out=8), texts, dim=8)
    got = model(Inputs(vectors))
    user, item = model.user(Inputs(vectors))[2], model.item(texts)[1]
    assert got.shape == (3, 4) and torch.allclose(got[2, 1], (user * item).sum(), atol=1e-5)
    assert not any(name.endswith("texts_ME") for name in model.state_dict())


def test_fine_tuning_reaches_the_encoder() -> None:
    encoder = Table()
    FineTuned(encoder=encoder, out=1)(Inputs(users_B=torch.tensor([1]))).sum().backward()
    grad = encoder.weight.grad
    assert grad is not None and grad[1].abs().sum() > 0 and grad[0].abs().sum() == 0


class Table(nn.Embedding):
    """An encoder of four users that only remembers."""

    dim, events = 5, 1

    def __init__(self) -> None:
        super().__init__(4, 5)

    def forward(self, users_B: Tensor) -> Tensor:
        return super().forward(users_B)
