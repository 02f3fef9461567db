# SPDX-License-Identifier: Apache-2.0
"""Channel models: fading, correlation, path loss, cell-free drops, 3GPP sectors."""

import math
import sys

import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.drops import (
    DropSettings,
    assign_pilots,
    draw_networks,
    estimate_gains,
    large_scale_gains,
    select_aps,
)
from fieldfare.wireless.channels.rayleigh import (
    correlated_rayleigh,
    exponential_correlation,
    one_ring_correlation,
    path_gains,
    rayleigh,
)
from fieldfare.wireless.channels.tr38901 import draw_sector


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(rows: torch.Tensor) -> torch.Tensor:
    """E[h^T conj(h)] over the first axis, (K, N, N)."""
    return torch.einsum("bkn,bkm->knm", rows, rows.conj()) / len(rows)


def test_rayleigh_has_unit_power_and_follows_its_seed() -> None:
    H = rayleigh((1000, 4, 8), seeded())
    assert H.dtype == torch.complex64
    assert H.abs().square().mean().item() == pytest.approx(1, abs=0.02)
    assert H.square().mean().abs().item() < 0.02  # circular
    assert torch.equal(H, rayleigh((1000, 4, 8), seeded()))


def test_correlated_fading_has_the_correlation_asked_for() -> None:
    magnitude, phase = torch.tensor([0.9, 0.0]), torch.tensor([0.5, 1.0])
    R = exponential_correlation(4, magnitude, phase)
    torch.testing.assert_close(R, R.mH)
    torch.testing.assert_close(R[0, 2, 0], torch.polar(torch.tensor(0.81), torch.tensor(1.0)))
    torch.testing.assert_close(R[1], torch.eye(4, dtype=R.dtype))
    H = correlated_rayleigh(R, (50_000,), seeded())
    assert H.shape == (50_000, 2, 4)
    torch.testing.assert_close(covariance(H), R, atol=0.03, rtol=0)


def test_one_ring_runs_from_a_single_direction_to_all_of_them() -> None:
    angle = torch.tensor([0.4, 0.4, 0.0], dtype=torch.float64)
    spread = torch.tensor([1e-6, 0.2, math.pi], dtype=torch.float64)
    R = one_ring_correlation(8, angle, spread)
    values = torch.linalg.eigvalsh(R)
    assert (values >= -1e-12).all()
    torch.testing.assert_close(R.diagonal(dim1=-2, dim2=-1).real, torch.ones(3, 8).double())
    assert values[0, -1].item() == pytest.approx(8)  # one direction: rank one
    index = torch.arange(8, dtype=torch.float64)
    steering = torch.polar(torch.ones_like(index), math.pi * math.sin(0.4) * index)
    torch.testing.assert_close(R[0], torch.outer(steering, steering.conj()), atol=1e-4, rtol=0)
    # All directions: the Bessel function J0 of the distance.
    torch.testing.assert_close(R[2, :, 0].real, torch.special.bessel_j0(math.pi * index))


def test_one_ring_needs_no_more_points() -> None:
    angle, spread = torch.tensor([0.3]), torch.tensor([0.5])
    for antennas in (8, 128):
        coarse = one_ring_correlation(antennas, angle, spread)
        fine = one_ring_correlation(antennas, angle, spread, points=4096)
        torch.testing.assert_close(coarse, fine, atol=5e-3, rtol=0)


def test_path_gains_lie_on_the_law() -> None:
    exact = path_gains((1000, 4), seeded(), exponent=4.0, min_distance=0.5, shadowing_db=0.0)
    assert exact.min() >= 1
    assert exact.max() <= 16.001
    inner = (exact > 0.75**-4).float().mean().item()  # share of the ring's area within 0.75
    assert inner == pytest.approx((0.75**2 - 0.25) / 0.75, abs=0.03)
    assert torch.equal(path_gains((2, 3), seeded(1)), path_gains((2, 3), seeded(1)))


def test_gain_at_a_known_distance() -> None:
    """AP and user in an area so small that only the height counts: -30.5 - 36.7 dB at 10 m."""
    settings = DropSettings(side_m=1e-6, shadowing_db=0.0)
    assert settings.noise_dbm() == pytest.approx(-93.99, abs=0.01)
    beta = large_scale_gains(2, 1, 3, settings, seeded())
    expected = -30.5 - 36.7 - settings.noise_dbm()
    torch.testing.assert_close(10 * beta.log10(), torch.full_like(beta, expected))


def test_area_wraps_around() -> None:
    """No user is further from an AP than half the diagonal of the square."""
    settings = DropSettings(shadowing_db=0.0, height_m=0.001)
    beta = large_scale_gains(50, 10, 20, settings, seeded())
    loss = settings.gain_at_1m_db - settings.noise_dbm() - 10 * beta.log10()
    distance = 10 ** (loss / 36.7)
    assert distance.max() <= 500 * math.sqrt(2) * (1 + 1e-9)
    # Uniform on the torus: the share within 250 m is the area of the disc.
    assert (distance < 250).double().mean().item() == pytest.approx(math.pi / 16, abs=0.02)


def test_shadowing_is_shared_by_neighbours_only() -> None:
    near = DropSettings(side_m=1e-6)
    beta = 10 * large_scale_gains(4000, 2, 2, near, seeded()).log10()
    deviation = beta - beta.mean(0)
    assert deviation.std().item() == pytest.approx(4, rel=0.03)
    torch.testing.assert_close(beta[:, 0], beta[:, 1], atol=1e-2, rtol=0)
    across_aps = (deviation[:, 0, 0] * deviation[:, 0, 1]).mean().item() / 16
    assert abs(across_aps) < 0.05


def test_estimates_lose_to_shared_pilots() -> None:
    settings = DropSettings()
    beta = large_scale_gains(5, 4, 6, settings, seeded())
    own = estimate_gains(beta, torch.arange(4).expand(5, 4), settings)
    shared = estimate_gains(beta, torch.tensor([0, 0, 1, 2]).expand(5, 4), settings)
    torch.testing.assert_close(own, 1000 * beta**2 / (1000 * beta + 1))
    assert (shared[:, :2] < own[:, :2]).all()
    torch.testing.assert_close(shared[:, 2:], own[:, 2:])
    assert (own < beta).all()


def test_pilots_go_where_they_are_heard_least() -> None:
    beta = torch.tensor([[[9.0, 0.1], [0.2, 5.0], [8.0, 1.0]]])
    assert assign_pilots(beta, 2).tolist() == [[0, 1, 1]]  # user 2's AP 0 hears user 1 least
    assert assign_pilots(beta, 5).tolist() == [[0, 1, 2]]


def test_strongest_aps_serve() -> None:
    beta = torch.tensor([[[3.0, 1.0, 2.0], [1.0, 5.0, 4.0]]])
    assert select_aps(beta, 2).tolist() == [[[True, False, True], [False, True, True]]]
    for count in (0, 4):
        with pytest.raises(InputError, match=f"serving APs {count}: must be 1 to 3"):
            select_aps(beta, count)


def test_networks_follow_their_seed_and_settings() -> None:
    first, second = (
        draw_networks(3, 12, 20, 2, serving_aps=4, generator=seeded(5)) for _ in range(2)
    )
    assert torch.equal(first.beta, second.beta)
    assert first.beta.shape == (3, 12, 20)
    assert first.beta.dtype == torch.float32
    assert (first.serving.sum(-1) == 4).all()
    assert first.pilots is not None
    assert (first.antennas == 2).all()
    assert draw_networks(1, 10, 20, generator=seeded()).pilots is None
    with pytest.raises(InputError, match="users 0: must be at least 1"):
        draw_networks(1, 0, 4)


@pytest.mark.slow  # Sionna takes ten seconds to import
@pytest.mark.parametrize(("scenario", "carrier_hz"), [("umi", 3.5e9), ("uma", 3.5e9), ("rma", 7e8)])
def test_3gpp_sectors(scenario: str, carrier_hz: float) -> None:
    pytest.importorskip("sionna.phy")
    size = {"drops": 3, "users": 4, "panel": (1, 4), "carrier_hz": carrier_hz, "tones": 2}
    first, second = (draw_sector(scenario, **size, seed=7) for _ in range(2))
    assert torch.equal(first.H, second.H)
    assert first.H.shape == (3, 2, 4, 8)
    gain = first.H.abs().square().mean((1, 3))
    torch.testing.assert_close(gain, torch.ones(3, 4))
    assert (first.gain_db < -60).all()
    assert (first.gain_db > -200).all()
    assert first.indoor.shape == (3, 4)
    assert not torch.equal(first.H, draw_sector(scenario, **size, seed=8).H)


def test_3gpp_without_sionna_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sionna.phy", None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-wireless\[sionna\]'"):
        draw_sector("umi", 1, 1)


def test_3gpp_scenarios_are_named() -> None:
    with pytest.raises(InputError, match="choose one of umi, uma, rma"):
        draw_sector("inh", 1, 1)
    with pytest.raises(InputError, match="at least 1"):
        draw_sector("umi", 1, 0)
