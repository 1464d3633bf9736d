"""Fusion: absent modalities are absent, to the bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders.fusion import Concatenation, Fusion

WIDTHS = [6, 8, 5]


def fusion(**changes: Any) -> Fusion:
    torch.manual_seed(0)
    return Fusion(widths=WIDTHS, dim=8, out_dim=7, layers=2, heads=2, **changes).eval()


def users() -> tuple[list[Tensor], Tensor]:
    """Eight users, one for each set of present modalities."""
    present = torch.tensor([[n >> m & 1 for m in range(3)] for n in range(8)]).bool()
    return [torch.randn(8, width) for width in WIDTHS], present


@pytest.mark.parametrize("grad", [True, False])
def test_what_an_absent_modality_holds_cannot_matter(grad: bool) -> None:
    model = fusion()
    vectors, present = users()
    with torch.set_grad_enabled(grad):
        before = model(vectors, present)
        for scale in (1.0, 1e4):
            for m, v in enumerate(vectors):
                noise = torch.where(present[:, m, None], v, scale * torch.randn_like(v))
                changed = [noise if i == m else w for i, w in enumerate(vectors)]
                assert torch.equal(model(changed, present), before)


def test_no_gradient_reaches_an_absent_modality() -> None:
    vectors, present = users()
    for v in vectors:
        v.requires_grad_()
    fusion()(vectors, present).square().sum().backward()
    for m, v in enumerate(vectors):
        assert not v.grad[~present[:, m]].any()
        assert v.grad[present[:, m]].abs().sum(1).min() > 1e-6


def test_every_present_modality_matters_and_so_does_which_are_present() -> None:
    model = fusion()
    vectors, present = users()
    before = model(vectors, present)
    for m, v in enumerate(vectors):
        changed = [v + torch.randn_like(v) if i == m else w for i, w in enumerate(vectors)]
        moved = (model(changed, present) - before).abs().amax(1) > 1e-5
        assert torch.equal(moved, present[:, m])
    same = [v[:1].expand_as(v) for v in vectors]
    fused = model(same, present)
    assert torch.cdist(fused, fused).fill_diagonal_(1).min() > 1e-3


def test_a_user_with_nothing_gets_the_cold_vector() -> None:
    model = fusion()
    torch.nn.init.normal_(model.cold_D)
    vectors, present = users()
    torch.testing.assert_close(model(vectors, present)[0], model.out(model.cold_D))
    only_cold = model(vectors, torch.zeros_like(present))
    torch.testing.assert_close(only_cold, model.out(model.cold_D).expand(8, -1))
    only_cold.sum().backward()
    assert model.cold_D.grad.abs().sum() > 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_without_layers_it_is_the_mean_over_present_tokens() -> None:
    torch.manual_seed(0)
    model = Fusion(widths=WIDTHS, dim=8, out_dim=7, layers=0, heads=2)
    vectors, present = users()
    fused = model(vectors, present)
    for b in range(1, 8):
        tokens = [
            model.project[m](vectors[m][b]) + model.modality_MD[m]
            for m in range(3)
            if present[b, m]
        ]
        torch.testing.assert_close(fused[b], model.out(torch.stack(tokens).mean(0)))


def test_tokens_attend_to_one_another() -> None:
    """The mean alone could not tell which modality goes with which: attention is not additive."""
    model = fusion()
    vectors, _ = users()
    everything = torch.ones(8, 3, dtype=torch.bool)
    first = [v + (torch.randn_like(v) if m == 0 else 0) for m, v in enumerate(vectors)]
    second = [v + (torch.randn_like(v) if m == 1 else 0) for m, v in enumerate(vectors)]
    both = [first[0], second[1], vectors[2]]
    fused = [model(v, everything) for v in (vectors, first, second, both)]
    assert (fused[3] - fused[1] - fused[2] + fused[0]).abs().max() > 1e-3


def test_users_do_not_attend_to_one_another() -> None:
    model = fusion()
    vectors, present = users()
    before = model(vectors, present)
    order = torch.randperm(8)
    shuffled = model([v[order] for v in vectors], present[order])
    torch.testing.assert_close(shuffled, before[order])
    changed = [v.clone() for v in vectors]
    for v in changed:
        v[3] += 5.0
    moved = (model(changed, present) - before).abs().amax(1) > 1e-6
    assert moved.nonzero().flatten().tolist() == [3]


def test_the_order_of_modalities_is_a_name_and_no_more() -> None:
    model = fusion()
    order = [2, 0, 1]
    other = copy.deepcopy(model)
    other.project = torch.nn.ModuleList(model.project[m] for m in order)
    other.modality_MD = torch.nn.Parameter(model.modality_MD[order])
    vectors, present = users()
    torch.testing.assert_close(
        other([vectors[m] for m in order], present[:, order]), model(vectors, present)
    )


def test_concatenation_is_a_linear_map_of_what_is_there() -> None:
    widths = [3, 5]
    fusion = Concatenation(widths=widths, out_dim=4)
    vectors = [torch.randn(6, width) for width in widths]
    has = [[True, True], [True, False], [False, True], [False, False]]
    present = torch.tensor([*has, *[[True, True]] * 2])
    fused = fusion(vectors, present)
    for b in range(6):
        parts = [v[b] if present[b, m] else torch.zeros(widths[m]) for m, v in enumerate(vectors)]
        torch.testing.assert_close(fused[b], fusion.out(torch.cat(parts)))
    noise = [torch.where(present[:, m, None], v, torch.nan) for m, v in enumerate(vectors)]
    torch.testing.assert_close(fusion(noise, present), fused)


def test_an_even_start_is_the_mean_of_the_modalities_on_an_equal_footing() -> None:
    model = fusion(start="even")
    vectors, present = users()
    model.fit(vectors, present)
    fused = model(vectors, present)
    for b in range(1, 8):
        tokens = []
        for m, v in enumerate(vectors):
            if not present[b, m]:
                continue
            there = v[present[:, m]]
            even = (v[b] - there.mean(0)) / (there - there.mean(0)).square().mean().sqrt()
            tokens.append(model.project[m](even) + model.modality_MD[m])
        torch.testing.assert_close(fused[b], model.out(torch.stack(tokens).mean(0)))


def test_from_an_even_start_neither_scale_nor_what_users_share_matters() -> None:
    model = fusion(start="even")
    vectors, present = users()
    model.fit(vectors, present)
    before = model(vectors, present)
    moved = [vectors[0] * 100 + 7, vectors[1] * 0.01 - 3, vectors[2] + 50]
    model.fit(moved, present)
    torch.testing.assert_close(model(moved, present), before, atol=1e-4, rtol=1e-4)
    absent = [torch.where(present[:, m, None], v, 1e6) for m, v in enumerate(moved)]
    model.fit(absent, present)  # who lacks a modality says nothing of its moments
    torch.testing.assert_close(model(absent, present), before, atol=1e-4, rtol=1e-4)


def test_an_even_concatenation_starts_from_what_attention_starts_from() -> None:
    torch.manual_seed(0)
    even = Concatenation(widths=WIDTHS, out_dim=7, start="even").eval()
    attention = fusion(start="even")
    vectors, present = users()
    for model in (even, attention):
        model.fit(vectors, present)
    fused = even(vectors, present)
    for b in range(8):
        parts = [
            centre(v[b]) if present[b, m] else torch.zeros(WIDTHS[m])
            for m, (centre, v) in enumerate(zip(attention.centre, vectors, strict=True))
        ]
        torch.testing.assert_close(fused[b], even.out(torch.cat(parts)))
    moved = [vectors[0] * 100 + 7, vectors[1] * 0.01 - 3, vectors[2] + 50]
    even.fit(moved, present)
    torch.testing.assert_close(even(moved, present), fused, atol=1e-4, rtol=1e-4)
    weight = even.out.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(7), atol=1e-5, rtol=0)
    assert even.out.bias.std() > 1.0  # a cosine sees how far from the average a user is


def test_an_even_start_loses_no_direction_and_every_layer_still_learns() -> None:
    torch.manual_seed(0)
    model = Fusion(widths=[8, 8], dim=8, out_dim=8, layers=2, heads=2, start="even").eval()
    weight = model.out.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    both = torch.ones(16, 2, dtype=torch.bool)
    target = torch.randn(16, 8)
    (model([torch.randn(16, 8), torch.randn(16, 8)], both) * target).sum().backward()
    for layer in model.layers:
        assert layer.attention.out_proj.weight.grad.any()
        assert layer.feed_forward[-1].weight.grad.any()


def test_a_random_start_has_no_moments_and_keeps_its_weights() -> None:
    model = fusion()
    before = copy.deepcopy(model.state_dict())
    vectors, present = users()
    model.fit(vectors, present)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not [name for name in before if name.startswith("centre")]
    assert [*Concatenation(widths=WIDTHS, out_dim=7).state_dict()] == ["out.weight", "out.bias"]
