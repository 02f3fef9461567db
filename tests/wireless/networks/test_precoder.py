# SPDX-License-Identifier: Apache-2.0
"""The precoding network: what it is without training, its symmetries, its two paths."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fieldfare.wireless.channels.rayleigh import path_gains, rayleigh
from fieldfare.wireless.networks.precoder import IcgnnPrecoder, precode, precode_ragged, run
from fieldfare.wireless.networks.refine import refine
from fieldfare.wireless.networks.structure import observe
from fieldfare.wireless.signals.linear import limit_antenna_power, rzf
from fieldfare.wireless.signals.rates import rate, squared_magnitude, sum_rate
from fieldfare.wireless.signals.wmmse import wmmse

SNR = 20.0


def channel(*size: int, seed: int = 0, dtype: Any = torch.complex128) -> Tensor:
    return rayleigh(size, torch.Generator().manual_seed(seed), dtype)


@pytest.fixture
def network() -> IcgnnPrecoder:
    """Of random weights: a symmetry that holds for these holds for any."""
    torch.manual_seed(0)
    found = IcgnnPrecoder(8, 3)
    for layer in found.layers:
        for parameter in layer.head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return found.double().eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 8), (8, 8), (6, 4)])
def test_untrained_it_is_wmmse_with_as_many_steps_as_layers(size: tuple[int, int]) -> None:
    H = channel(5, *size)
    for power in (0.1, 10.0, 1000.0):
        for layers in (1, 4):
            network = IcgnnPrecoder(8, layers).double()
            found = precode(network, H, power, 2.0, guard=False)
            expected = wmmse(H, power, 2.0, tolerance=-1.0, max_iterations=layers).W
            torch.testing.assert_close(found.W, expected, rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(found.rate, rate(H, found.W, 2.0))


def test_its_start_has_the_reference_rates_of_rzf(reference: Path) -> None:
    stored = np.load(reference / "wireless" / "mumiso_K8_N8.npz")
    H = torch.from_numpy(stored["H"]).to(torch.complex128)
    for snr_db in (0, 10, 20):
        first, *_ = run(IcgnnPrecoder().double(), observe(H, 10 ** (snr_db / 10), 1.0))
        np.testing.assert_allclose(
            first.response.rates().detach().numpy(),
            stored[f"rate_rzf_{snr_db}dB"],
            rtol=1e-3,
            atol=1e-5,
        )


def test_users_change_places(network: IcgnnPrecoder) -> None:
    H, order = channel(4, 6, 8), torch.tensor([3, 0, 5, 1, 4, 2])
    weights = torch.rand(4, 6, dtype=torch.float64) + 0.5
    W = precode(network, H, SNR, weights=weights).W
    swapped = precode(network, H[:, order], SNR, weights=weights[:, order]).W
    torch.testing.assert_close(swapped, W[:, :, order])


def test_rotated_antennas_rotate_the_precoder(network: IcgnnPrecoder) -> None:
    H = channel(4, 6, 8)
    Q = torch.linalg.qr(channel(8, 8, seed=1)).Q
    W = precode(network, H, SNR).W
    torch.testing.assert_close(precode(network, H @ Q, SNR).W, Q.mH @ W)


def test_phases_of_users_change_no_rate(network: IcgnnPrecoder) -> None:
    H = channel(4, 6, 8)
    phase = torch.polar(torch.ones(6, 1).double(), torch.rand(6, 1).double() * 6)
    torch.testing.assert_close(precode(network, H, SNR).rate, precode(network, phase * H, SNR).rate)


def test_units_change_no_rate(network: IcgnnPrecoder) -> None:
    H = channel(4, 6, 8)
    same = precode(network, 1e-5 * H, SNR * 1e4, 1e-6)
    torch.testing.assert_close(same.rate, precode(network, H, SNR).rate)


def test_channels_of_any_sizes_on_one_graph_equal_the_dense_path(network: IcgnnPrecoder) -> None:
    sizes = [(1, 4), (2, 2), (6, 8), (3, 16), (6, 8)]
    channels = [channel(*size, seed=index) for index, size in enumerate(sizes)]
    powers = [1.0, 10.0, 100.0, 5.0, 3.0]
    weights = [torch.rand(size[0], dtype=torch.float64) + 0.5 for size in sizes]
    ragged = precode_ragged(network, channels, powers, 1.0, weights=weights, guard=False)
    for H, power, own, found in zip(channels, powers, weights, ragged, strict=True):
        dense = precode(network, H, power, 1.0, weights=own, guard=False)
        torch.testing.assert_close(found.W, dense.W, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.rate, dense.rate, rtol=0, atol=1e-6)


def test_conjugate_gradients_run_to_the_end_equal_cholesky(network: IcgnnPrecoder) -> None:
    H = channel(4, 8, 8)
    exact = precode(network, H, 100.0)
    found = precode(network, H, 100.0, solver="cg", tolerance=1e-12, max_iterations=200)
    torch.testing.assert_close(found.W, exact.W, rtol=1e-5, atol=1e-6)
    near = precode(network, H, 100.0, solver="cg")
    torch.testing.assert_close(near.rate.sum(-1), exact.rate.sum(-1), rtol=1e-2, atol=0)


def test_users_of_weight_zero_are_as_if_not_there(network: IcgnnPrecoder) -> None:
    H = channel(4, 6, 8)
    weights = torch.tensor([1.0, 0, 2, 1, 0, 1]).double().expand(4, -1)
    served = weights[0] > 0
    whole = precode(network, H, SNR, weights=weights)
    fewer = precode(network, H[:, served], SNR, weights=weights[:, served])
    torch.testing.assert_close(whole.W[..., served], fewer.W, rtol=1e-6, atol=1e-7)
    assert whole.W[..., ~served].abs().max() < 1e-6


def test_power_is_that_asked_for(network: IcgnnPrecoder) -> None:
    H = channel(2, 3, 6, 8)
    power = torch.tensor([[1.0], [30.0]])
    W = precode(network, H, power, 0.1).W
    total = squared_magnitude(W).sum((-2, -1))
    torch.testing.assert_close(total, power.double().expand(2, 3))
    limited = precode(network, H, SNR, antenna_power=SNR / 8)
    assert squared_magnitude(limited.W).sum(-1).max() <= SNR / 8 * (1 + 1e-9)
    torch.testing.assert_close(limited.rate, rate(H, limited.W, 1.0))


def test_the_guard_never_lets_it_fall_below_rzf(network: IcgnnPrecoder) -> None:
    H = channel(64, 4, 8)
    safe = sum_rate(H, rzf(H, SNR), 1.0)
    bare = precode(network, H, SNR, guard=False)
    assert not bare.guarded.any()
    assert (bare.rate.sum(-1) < safe).any()
    guarded = precode(network, H, SNR)
    assert (guarded.rate.sum(-1) >= safe * (1 - 1e-12)).all()
    assert guarded.guarded.any()
    limit = SNR / 8
    kept = precode(network, H, SNR, antenna_power=limit)
    plain = limit_antenna_power(rzf(H, SNR), limit)
    assert (kept.rate.sum(-1) >= sum_rate(H, plain, 1.0) * (1 - 1e-12)).all()


def test_path_loss_of_many_decades_stays_finite(network: IcgnnPrecoder) -> None:
    gains = path_gains((16, 6), torch.Generator().manual_seed(0), shadowing_db=30)
    H = channel(16, 6, 8, dtype=torch.complex64) * gains.sqrt().unsqueeze(-1)
    H[0, 0] = 0
    found = precode(network.float(), H, 1e3, guard=False)
    assert found.W.isfinite().all()
    assert found.rate.isfinite().all()


def test_weights_in_bfloat16_leave_the_solves_in_float32(network: IcgnnPrecoder) -> None:
    H = channel(32, 8, 8, dtype=torch.complex64)
    wide = precode(network.float(), H, SNR, guard=False).rate.sum(-1)
    narrow = precode(network.to(torch.bfloat16), H, SNR, guard=False)
    assert narrow.W.dtype == torch.complex64
    torch.testing.assert_close(narrow.rate.sum(-1), wide, rtol=0.05, atol=0)


def test_refining_never_lowers_the_weighted_sum_rate() -> None:
    H = channel(16, 6, 6)
    weights = torch.rand(16, 6, dtype=torch.float64) + 0.5
    before = sum_rate(H, rzf(H, SNR), 1.0, weights)
    for steps in (1, 2, 3, 4, 10):
        W = refine(H, rzf(H, SNR), SNR, steps=steps, weights=weights)
        after = sum_rate(H, W, 1.0, weights)
        assert (after >= before).all()
        before = after - 1e-12
    torch.testing.assert_close(
        squared_magnitude(W).sum((-2, -1)), torch.full((16,), SNR, dtype=torch.float64)
    )


def test_refining_reaches_wmmse_in_fewer_steps() -> None:
    H = channel(32, 8, 8)
    best = sum_rate(H, wmmse(H, SNR).W, 1.0).mean()
    found = sum_rate(H, refine(H, rzf(H, SNR), SNR, steps=30), 1.0).mean()
    assert found > 0.995 * best
