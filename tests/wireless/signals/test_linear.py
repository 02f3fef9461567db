# SPDX-License-Identifier: Apache-2.0
"""Linear precoders, rates, water-filling, imperfect knowledge."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.signals.csi import imperfect_csi
from fieldfare.wireless.signals.linear import limit_antenna_power, mrt, rzf, zf
from fieldfare.wireless.signals.rates import rate, sinr, sum_rate
from fieldfare.wireless.signals.waterfilling import waterfilling, zf_waterfilling

SIZES = ("K2_N8", "K4_N8", "K4_N16", "K8_N8", "K8_N16", "K8_N32", "K16_N16", "K16_N64")
PRECODERS = {
    "mrt": lambda H, power: mrt(H, power),
    "zf": lambda H, power: zf(H, power),
    "rzf": lambda H, power: rzf(H, power, 1.0),
}


def channel(*size: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return rayleigh(size, torch.Generator().manual_seed(seed), dtype)


@pytest.mark.parametrize("name", PRECODERS)
@pytest.mark.parametrize("size", SIZES)
def test_rates_equal_the_reference(reference: Path, size: str, name: str) -> None:
    stored = np.load(reference / "wireless" / f"mumiso_{size}.npz")
    for snr_db in (0, 10, 20):
        expected = stored[f"rate_{name}_{snr_db}dB"]
        for dtype, tolerance in ((torch.complex128, 1e-9), (torch.complex64, 2e-5)):
            H = torch.from_numpy(stored["H"]).to(dtype)
            rates = rate(H, PRECODERS[name](H, 10 ** (snr_db / 10)), 1.0)
            np.testing.assert_allclose(rates.numpy(), expected, rtol=tolerance)


def test_rzf_equals_the_reference_precoder(reference: Path) -> None:
    stored = np.load(reference / "wireless" / "mumiso_K8_N16.npz")
    W = rzf(torch.from_numpy(stored["H"]), 10.0, 1.0)
    np.testing.assert_allclose(W.numpy(), stored["W_rzf_10dB"], atol=1e-5)


def test_sinr_follows_its_definition() -> None:
    H, W = channel(3, 4), channel(4, 3, seed=1)
    for user in range(3):
        powers = [abs((H[user] @ W[:, other]).item()) ** 2 for other in range(3)]
        expected = powers[user] / (sum(powers) - powers[user] + 0.7)
        assert sinr(H, W, 0.7)[user].item() == pytest.approx(expected)
        assert rate(H, W, 0.7)[user].item() == pytest.approx(math.log2(1 + expected))


def test_tiny_rates_survive_single_precision() -> None:
    H = channel(1, 1, dtype=torch.complex64)
    small = rate(H, mrt(H, 1e-9), 1.0)
    assert small.item() == pytest.approx(1e-9 * H.abs().square().item() / math.log(2), rel=1e-5)


@pytest.mark.parametrize("name", PRECODERS)
@pytest.mark.parametrize("normalisation", ["column", "total"])
def test_power_is_met_for_levels_of_the_leading_dimensions(name: str, normalisation: str) -> None:
    H, power = channel(5, 2, 3, 6), torch.tensor([1.0, 10.0], dtype=torch.float64)
    precoders = {"mrt": mrt, "zf": zf, "rzf": rzf}
    W = precoders[name](H, power, normalisation=normalisation)
    assert W.shape == (5, 2, 6, 3)
    torch.testing.assert_close(W.abs().square().sum((-2, -1)), power.expand(5, 2))
    if normalisation == "column":
        per_column = (power / 3)[:, None].expand(5, 2, 3)
        torch.testing.assert_close(W.abs().square().sum(-2), per_column)


@pytest.mark.parametrize("name", PRECODERS)
def test_permuting_users_permutes_columns(name: str) -> None:
    H, order = channel(4, 8), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(PRECODERS[name](H[order], 5.0), PRECODERS[name](H, 5.0)[:, order])


@pytest.mark.parametrize("name", PRECODERS)
def test_rotating_antennas_rotates_the_precoder(name: str) -> None:
    H, Q = channel(4, 8), torch.linalg.qr(channel(8, 8, seed=1)).Q
    torch.testing.assert_close(PRECODERS[name](H @ Q, 5.0), Q.mH @ PRECODERS[name](H, 5.0))


@pytest.mark.parametrize("name", PRECODERS)
def test_user_phases_leave_the_rates(name: str) -> None:
    H = channel(4, 8)
    turned = torch.polar(torch.ones(4), torch.arange(4.0)).to(H.dtype)[:, None] * H
    before, after = (rate(h, PRECODERS[name](h, 5.0), 1.0) for h in (H, turned))
    torch.testing.assert_close(before, after)


def test_zf_leaves_no_interference() -> None:
    H = channel(10, 8, 8)
    received = (H @ zf(H, 3.0)).abs()
    off_diagonal = received - torch.diag_embed(received.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.max() < 1e-12


def test_rzf_tends_to_mrt_and_to_zf() -> None:
    H = channel(4, 8)
    torch.testing.assert_close(rzf(H, 1.0, 1e12), mrt(H, 1.0))
    torch.testing.assert_close(rzf(H, 1.0, 1e-12), zf(H, 1.0))
    torch.testing.assert_close(rzf(H, regularisation=0.0), zf(H))


def test_rzf_by_conjugate_gradients_equals_cholesky() -> None:
    H = channel(5, 16, 16)
    torch.testing.assert_close(rzf(H, 100.0, solver="cg", tolerance=1e-12), rzf(H, 100.0))


def test_rzf_serves_more_users_than_antennas() -> None:
    H = channel(6, 4)
    assert torch.isfinite(rate(H, rzf(H, 10.0, 1.0), 1.0)).all()


def test_zf_refuses_more_users_than_antennas() -> None:
    with pytest.raises(InputError, match="5 users need at least as many antennas, not 4; use rzf"):
        zf(channel(5, 4))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_zf_refuses_dependent_channels(dtype: torch.dtype) -> None:
    H = channel(3, 2, 4, dtype=dtype)
    H[1, 1] = 2j * H[1, 0]
    with pytest.raises(InputError, match="matrix 1 are linearly dependent"):
        zf(H)


def test_zf_is_not_put_off_by_path_loss() -> None:
    H = channel(3, 6, dtype=torch.complex64)
    far = H * torch.tensor([1.0, 1e-4, 1e-8])[:, None]
    torch.testing.assert_close(zf(far), zf(H), rtol=1e-3, atol=1e-5)


def test_scaling_down_to_antenna_limits() -> None:
    W = rzf(channel(4, 4, 8), 10.0)
    limited = limit_antenna_power(W, 1.25)
    highest = limited.abs().square().sum(-1).amax(-1)
    torch.testing.assert_close(highest, torch.full((4,), 1.25, dtype=torch.float64))
    torch.testing.assert_close(limit_antenna_power(W, 1e3), W)


def test_gradients_of_rzf_and_rate() -> None:
    H = channel(2, 3, 4).requires_grad_()
    for solver in ("cholesky", "cg"):
        assert torch.autograd.gradcheck(
            lambda H, solver=solver: sum_rate(H, rzf(H, 10.0, solver=solver, tolerance=1e-14), 1.0),
            H,
        )


def test_sum_rate_weighs_users() -> None:
    H = channel(3, 4)
    W, weights = rzf(H), torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    assert sum_rate(H, W, 1.0, weights) == rate(H, W, 1.0) @ weights


def test_waterfilling_equalises_the_water_level() -> None:
    gains = torch.rand(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5
    power = waterfilling(gains, 1.5)
    torch.testing.assert_close(power.sum(-1), torch.full((50,), 1.5, dtype=torch.float64))
    level = torch.where(power > 0, power + 1 / gains, -torch.inf).amax(-1, keepdim=True)
    filled = power > 0
    torch.testing.assert_close((power + 1 / gains)[filled], level.expand_as(power)[filled])
    assert ((1 / gains)[~filled] >= level.expand_as(power)[~filled]).all()


def test_waterfilling_survives_dead_channels() -> None:
    power = waterfilling(torch.tensor([[0.0, 3.0], [0.0, 0.0]]), 2.0)
    torch.testing.assert_close(power[0], torch.tensor([0.0, 2.0]))
    assert torch.isfinite(power).all()


def test_zf_waterfilling_beats_zf_with_equal_powers() -> None:
    H = channel(100, 4, 5)
    W = zf_waterfilling(H, 2.0, 1.0)
    torch.testing.assert_close(
        W.abs().square().sum((-2, -1)), torch.full((100,), 2.0, dtype=torch.float64)
    )
    assert (sum_rate(H, W, 1.0) >= sum_rate(H, zf(H, 2.0), 1.0) - 1e-9).all()


def test_imperfect_csi_keeps_power_and_correlates_as_stated() -> None:
    H = channel(20_000, 2, 4) * torch.tensor([1.0, 1e-3])[:, None]
    estimate = imperfect_csi(H, 0.2, torch.Generator().manual_seed(1))
    for user, scale in enumerate((1.0, 1e-6)):
        truth, guess = H[:, user], estimate[:, user]
        assert guess.abs().square().mean().item() == pytest.approx(scale, rel=0.02)
        correlation = (truth.conj() * guess).mean().real.item() / scale
        assert correlation == pytest.approx(math.sqrt(0.8), rel=0.02)


def test_imperfect_csi_at_its_ends() -> None:
    H = channel(2, 4)
    torch.testing.assert_close(imperfect_csi(H, 0.0), H)
    first, second = (imperfect_csi(H, 0.5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(ValueError, match="0 to 1"):
        imperfect_csi(H, 1.5)


def test_rate_falls_with_the_error_of_the_estimate() -> None:
    H, generator = channel(200, 4, 8), torch.Generator().manual_seed(2)
    means = [
        sum_rate(H, rzf(imperfect_csi(H, error, generator), 10.0), 1.0).mean()
        for error in (0.0, 0.1, 0.5, 1.0)
    ]
    assert means == sorted(means, reverse=True)
