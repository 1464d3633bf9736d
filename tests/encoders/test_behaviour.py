"""Behaviour encoder: time runs one way, windows are what they hold, and it can learn."""

from dataclasses import replace
from math import log1p
from typing import Any

import pytest
import torch
from torch import Tensor

from encoders import losses
from encoders.batch import Bags, UserBatch, example_batch
from encoders.behaviour import BehaviourConfig, BehaviourEncoder

TINY = BehaviourConfig(
    line_width=8, dim=6, line_hidden=8, temporal_dim=8, layers=2, heads=2, windows=6,
    pretrain_windows=6, forecast_windows=2, forecast_steps=2, cycle=2, dropout=0.0,
)  # fmt: skip


def batch_of(lines_BW: Tensor, width: int = 8, num_lines: int = 4) -> UserBatch:
    """One line per window: its number, -1 for an empty window, -2 for an unknown one."""
    users, windows = lines_BW.shape
    flat = lines_BW.reshape(-1)
    held = flat >= 0
    offsets = held.cumsum(0) - held.long()
    weights = torch.full((int(held.sum()),), log1p(1.0))
    generator = torch.Generator().manual_seed(5)
    return replace(
        example_batch(num_users=users, windows=windows, width=width),
        lines_VE=torch.randn(num_lines, width, generator=generator),
        bags={"bill": Bags(flat[held], offsets, weights)},
        known_BW=lines_BW > -2,
        filled_BW=lines_BW >= 0,
    )


def train(encoder: BehaviourEncoder, batch: UserBatch, steps: int) -> list[dict[str, float]]:
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-2)
    history = []
    for _ in range(steps):
        total, parts = encoder.loss(batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in parts.items()})
    return history


@pytest.mark.parametrize("temporal", ["transformer", "gru"])
@pytest.mark.parametrize("training", [True, False])
def test_a_later_window_does_not_change_earlier_contexts(temporal: Any, training: bool) -> None:
    encoder = BehaviourEncoder(replace(TINY, temporal=temporal)).train(training)
    z_BWD = torch.randn(3, 6, 6)
    with torch.set_grad_enabled(training):
        before = encoder.contexts(z_BWD)
        for changed in range(6):
            other = z_BWD.clone()
            other[:, changed:] = torch.randn(3, 6 - changed, 6)
            after = encoder.contexts(other)
            torch.testing.assert_close(
                after[:, :changed], before[:, :changed], atol=1e-6, rtol=1e-5
            )
        early = z_BWD.clone()
        early[:, 0] += 5 * torch.randn(6)
        moved = (encoder.contexts(early) - before).abs().amax((0, 2))
    assert (moved > 1e-4).all()  # while the past does reach every later context


@pytest.mark.parametrize("temporal", ["transformer", "gru"])
def test_contexts_add_what_time_says_to_the_windows(temporal: Any) -> None:
    encoder = BehaviourEncoder(replace(TINY, temporal=temporal))
    z_BWD = torch.randn(2, 6, 6)
    torch.nn.init.zeros_(encoder.up.weight)
    torch.nn.init.zeros_(encoder.up.bias)
    assert torch.equal(encoder.contexts(z_BWD), z_BWD)


def test_short_histories_use_the_latest_lags() -> None:
    encoder = BehaviourEncoder(TINY).eval()
    z_BWD = torch.randn(2, 3, 6)
    with torch.no_grad():
        before = encoder.contexts(z_BWD)
        encoder.lag_WH[:3] += 10 * torch.randn(3, 8)
        assert torch.equal(encoder.contexts(z_BWD), before)
        encoder.lag_WH[3:] += 10 * torch.randn(3, 8)
        assert (encoder.contexts(z_BWD) - before).abs().max() > 1e-3


def test_windows_are_weighted_sums_over_lines_and_sources() -> None:
    encoder = BehaviourEncoder(TINY)
    encoder.whiten.fit(torch.randn(20, 8))
    lines_VE = torch.randn(5, 8)
    held = {  # source → (window, line, weight)
        "bill": [(0, 1, 0.7), (0, 4, 1.1), (3, 4, 0.2)],
        "click": [(0, 1, 2.0), (2, 0, 1.0)],
    }
    bags = {}
    for source, cells in held.items():
        _, ids, weights = zip(*cells, strict=True)
        offsets = [sum(w < window for w, _, _ in cells) for window in range(4)]
        bags[source] = Bags(torch.tensor(ids), torch.tensor(offsets), torch.tensor(weights))
    batch = replace(
        example_batch(num_users=2, windows=2), lines_VE=lines_VE, bags=bags,
        filled_BW=torch.tensor([[True, False], [True, True]]),
    )  # fmt: skip
    got = encoder.windows(batch).reshape(4, -1)
    for window in (0, 2, 3):
        expected = torch.zeros(6)
        for source, cells in held.items():
            for at, line, weight in cells:
                if at == window:
                    line_E = encoder.whiten(lines_VE[line])
                    expected = expected + weight * encoder.sources[source](line_E)
        torch.testing.assert_close(got[window], expected)


def test_empty_and_unknown_windows_have_vectors_of_their_own() -> None:
    encoder = BehaviourEncoder(TINY)
    torch.nn.init.normal_(encoder.empty_D)
    torch.nn.init.normal_(encoder.unknown_D)
    batch = batch_of(torch.tensor([[-2, -1, 0], [-2, -2, 3]]))
    z_BWD = encoder.windows(batch)
    for at in ((0, 0), (1, 0), (1, 1)):
        assert torch.equal(z_BWD[at], encoder.unknown_D)
    assert torch.equal(z_BWD[0, 1], encoder.empty_D)
    noise = encoder.windows(replace(batch, lines_VE=torch.randn(4, 8)))
    assert torch.equal(noise[~batch.filled_BW], z_BWD[~batch.filled_BW])
    assert (noise[batch.filled_BW] - z_BWD[batch.filled_BW]).abs().min() > 1e-5


def test_mean_pooling_is_equation_5() -> None:
    encoder = BehaviourEncoder(replace(TINY, pooling="mean")).eval()
    batch = batch_of(torch.tensor([[-2, -2, 0, -1, 1, 2], [0, 1, -1, 3, 2, 1], [-2] * 6]))
    c_BWD = encoder.contexts(encoder.windows(batch))
    expected = [c_BWD[0, 2:].mean(0), c_BWD[1].mean(0), torch.zeros(6)]
    torch.testing.assert_close(encoder(batch), torch.stack(expected))


def test_recency_pooling_starts_as_the_mean_and_weighs_each_coordinate() -> None:
    encoder = BehaviourEncoder(replace(TINY, pooling="recency")).eval()
    batch = batch_of(torch.randint(4, (3, 6)))
    c_BWD = encoder.contexts(encoder.windows(batch))
    torch.testing.assert_close(encoder(batch), c_BWD.mean(1))
    torch.nn.init.normal_(encoder.pool_WD)
    short = batch_of(torch.randint(4, (3, 4)))
    c_BWD = encoder.contexts(encoder.windows(short))
    expected = sum(c_BWD[:, w] * encoder.pool_WD[w + 2] for w in range(4))
    torch.testing.assert_close(encoder(short), expected)


def test_the_loss_is_forecast_plus_weighted_cycle() -> None:
    encoder = BehaviourEncoder(replace(TINY, cycle_weight=0.3))
    batch = batch_of(torch.randint(-1, 4, (5, 6)))
    total, parts = encoder.loss(batch)
    assert parts["cycle"].item() > 1e-6
    assert total.item() == pytest.approx(
        parts["forecast"].item() + 0.3 * parts["cycle"].item(), rel=1e-6
    )
    c_BWD = encoder.contexts(encoder.windows(batch)[:, :4])
    expected = losses.cyclic(c_BWD, batch.filled_BW[:, :4], period=2)
    assert parts["cycle"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_contexts_of_the_loss_never_see_the_forecast_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = BehaviourEncoder(TINY)
    seen: list[dict[str, Any]] = []
    original = losses.forecasting

    def record(context: Tensor, window: Tensor, valid: Tensor, **settings: Any) -> Tensor:
        seen.append({"context": context, "window": window, **settings})
        return original(context, window, valid, **settings)

    monkeypatch.setattr(losses, "forecasting", record)
    lines = torch.randint(4, (3, 6))
    encoder.loss(batch_of(lines))
    lines[:, 4:] = (lines[:, 4:] + 1) % 4
    encoder.loss(batch_of(lines))
    first, second = seen
    assert first["contexts"] == 4
    assert first["steps"] == 2
    torch.testing.assert_close(first["context"][:, :4], second["context"][:, :4])
    assert (first["window"][:, 4:] - second["window"][:, 4:]).abs().max() > 1e-3


@pytest.mark.parametrize("temporal", ["transformer", "gru"])
def test_training_learns_that_habits_repeat(temporal: Any) -> None:
    config = replace(TINY, temporal=temporal, temperature=0.2)
    batch = batch_of(torch.tensor([[n] * 6 for n in (0, 1, 2, 3)]))
    history = train(BehaviourEncoder(config), batch, 40)
    # 24 windows, 6 of them the user's own, so knowing the user is worth log 4.
    assert history[-1]["forecast"] < history[0]["forecast"] - 0.3
    assert history[-1]["forecast"] < 2.0


def test_nothing_to_forecast_is_no_loss() -> None:
    encoder = BehaviourEncoder(TINY)
    total, _ = encoder.loss(batch_of(torch.full((2, 6), -1)))
    total.backward()
    assert total.item() == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal": "lstm"}, "temporal must be 'transformer' or 'gru', got 'lstm'"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temporal_dim": 9}, "temporal_dim=9 must be a multiple of heads=2"),
        ({"forecast_windows": 0}, "forecast_windows < pretrain_windows"),
        ({"forecast_windows": 6}, "got 6, 6, 6"),
        ({"windows": 5}, "got 2, 6, 5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)
