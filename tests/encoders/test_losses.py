"""Each loss against a slow reference in plain Python, an invariance, and its edges."""

from math import exp, log, sqrt

import pytest
import torch
from torch import Tensor

from encoders import losses


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_forecasting(
    c: Tensor, z: Tensor, valid: Tensor, steps: int, contexts: int | None, temperature: float
) -> float:
    B, T, _ = c.shape
    c_, z_ = c.tolist(), z.tolist()
    terms = []
    for b in range(B):
        for t in range(T if contexts is None else contexts):
            scores = {
                (u, s): exp(cosine(c_[b][t], z_[u][s]) / temperature)
                for u in range(B)
                for s in range(T)
                if valid[u, s]
            }
            for ahead in range(1, steps + 1):
                if (b, t + ahead) in scores:
                    terms.append(-log(scores[b, t + ahead] / sum(scores.values())))
    return sum(terms) / len(terms) if terms else 0.0


def slow_cyclic(c: Tensor, valid: Tensor, period: int) -> float:
    terms = []
    for b in range(len(c)):
        for t in range(c.shape[1] - period):
            if valid[b, t] and valid[b, t + period]:
                p, q = ([exp(x) for x in c[b, s].tolist()] for s in (t, t + period))
                p, q = ([x / sum(v) for x in v] for v in (p, q))
                terms.append(sum(x * log(x / y) for x, y in zip(p, q, strict=True)))
    return sum(terms) / len(terms) if terms else 0.0


def slow_alignment(logits: Tensor, positive: Tensor) -> float:
    def one_way(x: list[list[float]], fits: list[list[bool]]) -> float:
        rows = []
        for row, mask in zip(x, fits, strict=True):
            negatives = sum(exp(v) for v, hit in zip(row, mask, strict=True) if not hit)
            own = [
                -log(exp(v) / (exp(v) + negatives)) for v, hit in zip(row, mask, strict=True) if hit
            ]
            if own:
                rows.append(sum(own) / len(own))
        return sum(rows) / len(rows) if rows else 0.0

    there = one_way(logits.tolist(), positive.tolist())
    return 0.5 * (there + one_way(logits.T.tolist(), positive.T.tolist()))


def windows(seed: int = 0, B: int = 3, T: int = 6, D: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    c, z = torch.randn(2, B, T, D, generator=generator, dtype=torch.float64)
    return c, z, torch.rand(B, T, generator=generator) < 0.7


@pytest.mark.parametrize(
    ("steps", "contexts", "temperature"), [(1, None, 1.0), (3, 4, 0.2), (9, 2, 0.5), (2, 6, 1.0)]
)
@pytest.mark.parametrize("seed", range(3))
def test_forecasting_is_equation_6(
    seed: int, steps: int, contexts: int | None, temperature: float
) -> None:
    c, z, valid = windows(seed)
    got = losses.forecasting(
        c, z, valid, steps=steps, contexts=contexts, temperature=temperature
    )  # fmt: skip
    assert got.item() == pytest.approx(
        slow_forecasting(c, z, valid, steps, contexts, temperature), rel=1e-9
    )


def test_forecasting_ignores_lengths_order_of_users_and_invalid_windows() -> None:
    c, z, valid = windows()

    def loss(c: Tensor, z: Tensor, valid: Tensor) -> float:
        return losses.forecasting(c, z, valid, steps=2, contexts=4).item()

    expected = loss(c, z, valid)
    scale = torch.rand(3, 6, 1, dtype=torch.float64) + 0.1
    assert loss(c * scale, z / scale, valid) == pytest.approx(expected, rel=1e-12)
    order = [2, 0, 1]
    assert loss(c[order], z[order], valid[order]) == pytest.approx(expected, rel=1e-12)
    hidden = torch.where(valid.unsqueeze(-1), z, 100 * torch.randn_like(z))
    assert loss(c, hidden, valid) == expected
    late = torch.cat([c[:, :4], torch.randn_like(c[:, 4:])], 1)
    assert loss(late, z, valid) == expected


@pytest.mark.parametrize("windows_kept", [0, 1])
def test_forecasting_without_a_positive_is_zero_with_zero_gradient(windows_kept: int) -> None:
    c, z, valid = windows()
    valid = torch.zeros_like(valid)
    valid[:, :windows_kept] = True  # a first window is nobody's future
    c.requires_grad_()
    loss = losses.forecasting(c, z.requires_grad_(), valid, steps=3)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(c.grad, torch.zeros_like(c))


def test_forecasting_with_one_valid_window_has_nothing_to_tell_it_from() -> None:
    c, z, valid = windows()
    valid = torch.zeros_like(valid)
    valid[1, 2] = True
    assert losses.forecasting(c, z, valid, steps=1).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("period", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_cyclic_is_the_divergence_of_equation_7(seed: int, period: int) -> None:
    c, _, valid = windows(seed)
    assert losses.cyclic(c, valid, period=period).item() == pytest.approx(
        slow_cyclic(c, valid, period), rel=1e-9
    )


def test_cyclic_ignores_shifts_and_vanishes_on_a_cycle() -> None:
    c, _, valid = windows()
    shift = torch.randn(3, 6, 1, dtype=torch.float64)
    expected = losses.cyclic(c, valid, period=2).item()
    assert losses.cyclic(c + shift, valid, period=2).item() == pytest.approx(expected, rel=1e-9)
    assert expected > 0.01
    repeating = c[:, :2].repeat(1, 3, 1)
    assert losses.cyclic(repeating, valid, period=2).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("period", [3, 6, 7])
def test_cyclic_without_a_pair_is_zero(period: int) -> None:
    c, _, valid = windows()
    valid[:, 3:] = False
    c.requires_grad_()
    loss = losses.cyclic(c, valid, period=period)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(c.grad, torch.zeros_like(c))


def table(seed: int = 0) -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (2, 5, 3)
    logits = [torch.randn(7, size, generator=generator) for size in sizes]
    codes = torch.stack([torch.randint(size, (7,), generator=generator) for size in sizes], 1)
    return logits, codes, torch.rand(7, 3, generator=generator) < torch.tensor([0.8, 0.3, 0.1])


@pytest.mark.parametrize("seed", range(3))
def test_masked_columns_is_the_sum_over_a_users_masked_cells(seed: int) -> None:
    logits, codes, masked = table(seed)
    terms = []
    for row in range(7):
        for column in range(3):
            if masked[row, column]:
                scores = [exp(x) for x in logits[column][row].tolist()]
                terms.append(-log(scores[codes[row, column]] / sum(scores)))
    got = losses.masked_columns(logits, codes, masked).item()
    assert got == pytest.approx(sum(terms) / 7, rel=1e-5)


def test_masked_columns_looks_at_masked_cells_only() -> None:
    logits, codes, masked = table()
    expected = losses.masked_columns(logits, codes, masked)
    noise = [
        torch.where(masked[:, c, None], x, torch.randn_like(x)) for c, x in enumerate(logits)
    ]  # fmt: skip
    shown = torch.where(masked, codes, torch.zeros_like(codes))
    assert torch.equal(losses.masked_columns(noise, shown, masked), expected)
    assert losses.masked_columns(logits, codes, torch.zeros_like(masked)).item() == 0.0
    every = losses.masked_columns(logits, codes, torch.ones_like(masked)).item()
    means = [torch.nn.functional.cross_entropy(x, codes[:, c]) for c, x in enumerate(logits)]
    assert every == pytest.approx(torch.stack(means).sum().item(), rel=1e-6)


@pytest.mark.parametrize("with_valid", [False, True])
def test_replaced_detection_is_cross_entropy_over_all_cells(with_valid: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    replaced = torch.rand(4, 5, generator=generator) < 0.3
    valid = (torch.rand(4, 5, generator=generator) < 0.6).double() if with_valid else None
    terms = []
    for i in range(4):
        for j in range(5):
            if valid is None or valid[i, j]:
                p = 1 / (1 + exp(-logits[i, j].item()))
                terms.append(-log(p if replaced[i, j] else 1 - p))
    got = losses.replaced_detection(logits, replaced, valid)
    assert got.item() == pytest.approx(sum(terms) / len(terms), rel=1e-9)
    mirrored = losses.replaced_detection(-logits, ~replaced, valid)
    assert mirrored.item() == pytest.approx(got.item(), rel=1e-12)
    if valid is not None:
        hidden = torch.where(valid > 0, logits, 1e3 * torch.randn_like(logits))
        assert torch.equal(losses.replaced_detection(hidden, replaced, valid), got)
        assert losses.replaced_detection(logits, replaced, valid * 0).item() == 0.0


def pairs(seed: int = 0, rate: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    return logits, torch.rand(5, 7, generator=generator) < rate


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_alignment_contrasts_each_positive_with_the_negatives(seed: int, rate: float) -> None:
    logits, positive = pairs(seed, rate)
    assert losses.alignment(logits, positive).item() == pytest.approx(
        slow_alignment(logits, positive), rel=1e-9
    )


def test_alignment_with_one_positive_each_is_the_papers_loss_both_ways() -> None:
    logits = 3 * torch.randn(6, 6, dtype=torch.float64)
    labels = torch.arange(6)
    paper = torch.nn.functional.cross_entropy
    expected = 0.5 * (paper(logits, labels) + paper(logits.T, labels))
    got = losses.alignment(logits, torch.eye(6, dtype=torch.bool))
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_alignment_one_way_is_equation_15() -> None:
    logits, _ = pairs()
    square = logits[:, : len(logits)]
    diagonal = torch.eye(len(square), dtype=torch.bool)
    rows = [
        -log(exp(row[i]) / sum(exp(x) for x in row)) for i, row in enumerate(square.tolist())
    ]  # fmt: skip
    got = losses.alignment(square, diagonal, symmetric=False).item()
    assert got == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    assert losses.alignment(square, diagonal).item() != pytest.approx(got, rel=1e-3)


def test_alignment_ignores_order_constants_and_which_side_is_which() -> None:
    logits, positive = pairs()
    expected = losses.alignment(logits, positive).item()
    rows, columns = torch.randperm(5), torch.randperm(7)
    shuffled = losses.alignment(logits[rows][:, columns], positive[rows][:, columns])
    assert shuffled.item() == pytest.approx(expected, rel=1e-12)
    assert losses.alignment(logits + 5, positive).item() == pytest.approx(expected, rel=1e-9)
    assert losses.alignment(logits.T, positive.T).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("value", [False, True])
def test_alignment_without_contrast_is_zero_with_zero_gradient(value: bool) -> None:
    logits, positive = pairs()
    logits.requires_grad_()
    loss = losses.alignment(logits, torch.full_like(positive, value))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_alignment_has_finite_gradients_when_some_rows_are_all_or_none() -> None:
    logits, positive = pairs()
    positive[0], positive[1] = True, False
    logits.requires_grad_()
    losses.alignment(100 * logits, positive).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0
