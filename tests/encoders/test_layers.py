"""Small layers."""

from collections.abc import Callable

import torch

from encoders.layers import Centre, NearIdentity, ResidualMlp, Standardise, Whiten


def test_whitening_is_the_identity_until_fitted() -> None:
    x = torch.randn(5, 4)
    assert torch.equal(Whiten(4)(x), x)


def test_whitened_vectors_are_centred_and_uncorrelated() -> None:
    x = torch.randn(4_000, 3) @ torch.tensor([[3.0, 1, 0], [0, 0.5, 0], [1, 0, 1]]) + 7
    whiten = Whiten(3, shrink=0.0)
    whiten.fit(x)
    y = whiten(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(torch.cov(y.T), torch.eye(3), atol=1e-3, rtol=0)


def test_shrinking_quiets_rare_directions() -> None:
    x = torch.randn(4_000, 2) * torch.tensor([1.0, 1e-3])
    whiten = Whiten(2, shrink=0.1)
    whiten.fit(x)
    deviation = whiten(x).std(0)
    covariance = torch.cov(x.T)
    floor = 0.1 * covariance.diagonal().mean()
    expected = (covariance.diagonal() / (covariance.diagonal() + floor)).sqrt()
    torch.testing.assert_close(deviation, expected, atol=1e-3, rtol=1e-3)
    assert deviation[1] < 0.01 < 0.9 < deviation[0]


def test_one_point_and_a_flat_cloud_stay_finite() -> None:
    for x in (torch.ones(1, 3), torch.ones(9, 3), torch.randn(2, 3)):
        whiten = Whiten(3)
        whiten.fit(x)
        assert torch.isfinite(whiten(x)).all()


def test_moments_are_kept_with_the_weights() -> None:
    fitted, fresh = Whiten(3), Whiten(3)
    fitted.fit(torch.randn(50, 3) * 2 + 1)
    fresh.load_state_dict(fitted.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(fresh(x), fitted(x))
    assert not list(fitted.parameters())


def test_the_residual_mlp_adds_a_line_and_a_bend() -> None:
    layer = ResidualMlp(3, 2, hidden=5)
    x, y = torch.randn(2, 4, 3)
    first, gelu, last = layer.mlp
    straight = x @ layer.linear.weight.T + layer.linear.bias
    bent = gelu(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(layer(x), straight + bent)
    assert (layer(x + y) - layer(x) - layer(y) + layer(0 * x)).abs().max() > 1e-3  # not linear


def test_near_identity_starts_as_the_identity_and_a_bias() -> None:
    layer, x = NearIdentity(6, rank=2), torch.randn(9, 6)
    torch.testing.assert_close(layer(x), x + layer.out.bias)


def test_near_identity_bends_in_few_directions_only(jolt: Callable) -> None:
    layer, x = NearIdentity(6, rank=2), torch.randn(9, 6)
    jolt(layer)
    changed = layer(x) - x - layer.out.bias
    torch.testing.assert_close(changed, x @ layer.into.weight.T @ layer.out.weight.T)
    assert torch.linalg.matrix_rank(changed) == 2


def test_standardised_columns_have_mean_0_and_deviation_1() -> None:
    x = torch.randn(500, 3) * torch.tensor([1.0, 100.0, 0.0]) + torch.tensor([0.0, -7.0, 4.0])
    layer = Standardise(3)
    layer.fit(x)
    y = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)
    assert y[:, 2].abs().max() == 0  # a constant column is only centred


def test_standardising_cuts_outliers_and_keeps_its_moments() -> None:
    fitted, fresh = Standardise(2), Standardise(2)
    fitted.fit(torch.randn(50, 2) * 3 + 1)
    fresh.load_state_dict(fitted.state_dict())
    far = torch.tensor([[1e6, -1e6]])
    assert fresh(far).tolist() == [[5.0, -5.0]]
    x = torch.randn(4, 2)
    assert torch.equal(fresh(x), fitted(x))
    assert not list(fitted.parameters())


def test_one_row_is_too_little_to_standardise_by() -> None:
    layer, x = Standardise(2), torch.tensor([[1.0, -2.0]])
    for rows in (x, x[:0]):
        layer.fit(rows)
    assert torch.equal(layer(x), x)


def test_centring_keeps_which_directions_are_wide() -> None:
    x = torch.randn(5_000, 2) * torch.tensor([3.0, 1.0]) + torch.tensor([40.0, -7.0])
    centre = Centre(2)
    assert torch.equal(centre(x), x), "the identity until fitted"
    centre.fit(x)
    y = centre(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(y.std(0)[0] / y.std(0)[1], x.std(0)[0] / x.std(0)[1])


def test_centring_nobody_or_equals_stays_finite() -> None:
    for x in (torch.ones(0, 3), torch.ones(1, 3), torch.ones(9, 3)):
        centre = Centre(3)
        centre.fit(x)
        assert torch.isfinite(centre(torch.randn(4, 3))).all()
