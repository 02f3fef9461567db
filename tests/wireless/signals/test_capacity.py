# SPDX-License-Identifier: Apache-2.0
"""Sum capacity and its certificate."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.signals.capacity import sum_capacity
from fieldfare.wireless.signals.rates import sum_rate
from fieldfare.wireless.signals.waterfilling import waterfilling
from fieldfare.wireless.signals.wmmse import wmmse

SIZES = ("K2_N8", "K4_N8", "K4_N16", "K8_N8", "K8_N16", "K8_N32", "K16_N16", "K16_N64")


def channel(*size: int, seed: int = 0) -> torch.Tensor:
    return rayleigh(size, torch.Generator().manual_seed(seed), torch.complex128)


@pytest.mark.parametrize("size", SIZES)
def test_capacity_equals_the_reference(reference: Path, size: str) -> None:
    stored = np.load(reference / "wireless" / f"mumiso_{size}.npz")
    for snr_db in (0, 10, 20):
        found = sum_capacity(torch.from_numpy(stored["H"]), 10 ** (snr_db / 10))
        np.testing.assert_allclose(found.capacity, stored[f"sumcap_{snr_db}dB"], rtol=2e-6)
        assert (found.upper_bound.numpy() >= stored[f"sumcap_{snr_db}dB"] * (1 - 1e-8)).all()


@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_bound_holds_long_before_convergence(iterations: int) -> None:
    H = channel(30, 8, 8)
    capacity = sum_capacity(H, 3.0, tolerance=1e-8).capacity
    early = sum_capacity(H, 3.0, max_iterations=iterations)
    assert (early.capacity <= capacity * (1 + 1e-8)).all()
    assert (early.upper_bound >= capacity * (1 - 1e-8)).all()
    assert (early.iterations == iterations).all()


def test_no_precoder_exceeds_it() -> None:
    H = channel(2, 20, 6, 6)
    power = torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    best = wmmse(H, power, restarts=2, generator=torch.Generator().manual_seed(1))
    assert (sum_rate(H, best.W, 1.0) < sum_capacity(H, power).upper_bound).all()


def test_orthogonal_users_fill_water() -> None:
    gains = torch.tensor([4.0, 1.0, 0.1], dtype=torch.float64)
    H = torch.diag(gains.sqrt()).to(torch.complex128)
    power = waterfilling(gains / 0.5, 2.0)
    expected = torch.log2(1 + gains * power / 0.5).sum()
    found = sum_capacity(H, 2.0, 0.5, tolerance=1e-9)
    torch.testing.assert_close(found.capacity, expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(found.dual_power, power, rtol=0, atol=1e-3)


def test_more_users_than_antennas() -> None:
    H = channel(12, 4)
    found = sum_capacity(H, 10.0)
    assert found.upper_bound <= found.capacity * (1 + 1e-6)
    assert found.capacity >= sum_capacity(H[:6], 10.0).capacity


def test_dual_powers_reach_the_capacity() -> None:
    H = channel(5, 3, 6)
    found = sum_capacity(H, 4.0, 0.5)
    weighted = H.mH @ (found.dual_power.unsqueeze(-1) * H) / 0.5
    determinant = torch.linalg.slogdet(torch.eye(6) + weighted).logabsdet / np.log(2)
    torch.testing.assert_close(determinant, found.capacity)
    total = torch.full((5,), 4.0, dtype=torch.float64)
    torch.testing.assert_close(found.dual_power.sum(-1), total)
