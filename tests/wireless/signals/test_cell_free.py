# SPDX-License-Identifier: Apache-2.0
"""Cell-free spectral efficiency, the simple allocations, and the sum rate."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.signals.cell_free import (
    CellFree,
    cell_free,
    limit_power,
    sinr,
    spectral_efficiency,
)
from fieldfare.wireless.signals.power_baselines import equal, fractional
from fieldfare.wireless.signals.sum_rate import maximise_sum_rate

SIZES = ("L4_K2_N1", "L8_K3_N1", "L10_K4_N2", "L25_K6_N4")


def networks(users: int = 6, serving_aps: int | None = 5, seed: int = 0) -> CellFree:
    return draw_networks(
        3,
        users,
        12,
        4,
        serving_aps=serving_aps,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )


def stored_networks(reference: Path, size: str) -> tuple[dict[str, np.ndarray], CellFree]:
    stored = dict(np.load(reference / "wireless" / f"cellfree_{size}.npz"))
    beta, gamma = torch.from_numpy(stored["beta"]), torch.from_numpy(stored["gamma"])
    return stored, cell_free(beta, gamma, float(stored["P"]), int(stored["N"]))


@pytest.mark.parametrize("size", SIZES)
def test_simple_allocations_equal_the_reference(reference: Path, size: str) -> None:
    stored, network = stored_networks(reference, size)
    np.testing.assert_allclose(fractional(network), stored["mu_fpa05"], rtol=1e-9)
    for name, mu in (("fpa05", fractional(network)), ("equal", equal(network))):
        found = spectral_efficiency(network, mu)
        np.testing.assert_allclose(found, stored[f"se_{name}"], rtol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_sum_rate_is_no_worse_than_the_reference(reference: Path, size: str) -> None:
    stored, network = stored_networks(reference, size)
    found = maximise_sum_rate(network)
    assert (found.value.numpy() >= stored["se_sum"].sum(-1) * (1 - 1e-4)).all()


def test_sinr_agrees_with_simulated_fading_under_shared_pilots() -> None:
    """Hardening bound of MR, its expectations taken over 100,000 drawn channels."""
    generator = torch.Generator().manual_seed(0)
    users, aps, antennas, draws, energy = 3, 2, 2, 100_000, 20.0
    beta = torch.rand((users, aps), generator=generator, dtype=torch.float64) + 0.2
    pilots = torch.tensor([0, 1, 0])
    same = (pilots[:, None] == pilots).double()
    gamma = energy * beta**2 / (energy * same @ beta + 1)
    mu = torch.rand((users, aps), generator=generator, dtype=torch.float64)

    size = (draws, users, aps, antennas)
    h = beta.sqrt()[..., None] * rayleigh(size, generator, torch.complex128)
    noise = rayleigh((draws, 2, aps, antennas), generator, torch.complex128)[:, pilots]
    heard = energy**0.5 * torch.einsum("ki,bila->bkla", same.to(h.dtype), h) + noise
    estimate = (gamma / (energy**0.5 * beta))[..., None] * heard
    w = (mu / (antennas * gamma).sqrt())[..., None] * estimate
    received = torch.einsum("bkla,bila->bki", h.conj(), w)
    wanted = received.mean(0).diagonal().abs() ** 2
    simulated = wanted / (received.abs().square().mean(0).sum(-1) - wanted + 1)

    network = cell_free(beta, gamma, 9.0, antennas, pilots=pilots)
    torch.testing.assert_close(sinr(network, mu), simulated, rtol=0.02, atol=0)
    orthogonal = cell_free(beta, gamma, 9.0, antennas)
    assert (sinr(orthogonal, mu) > sinr(network, mu))[[0, 2]].all()
    assert sinr(orthogonal, mu)[1] == sinr(network, mu)[1]


def test_pairs_not_served_neither_help_nor_hurt() -> None:
    network = networks()
    mu = fractional(network)
    extra = torch.where(network.serving, mu, 7.0)
    torch.testing.assert_close(sinr(network, extra), sinr(network, mu))


def test_prelog_scales() -> None:
    network = networks()
    mu = equal(network)
    torch.testing.assert_close(
        spectral_efficiency(network, mu, 0.95), 0.95 * spectral_efficiency(network, mu)
    )


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fractional_spends_all_power_on_served_users(exponent: float, dtype: torch.dtype) -> None:
    network = networks()
    network = network.map(lambda part: part.to(dtype) if part.is_floating_point() else part)
    mu = fractional(network, exponent)
    assert (mu[~network.serving] == 0).all()
    spent = mu.square().sum(-2)
    busy = network.serving.any(-2)
    torch.testing.assert_close(spent[busy], network.power[busy])
    assert (spent[~busy] == 0).all()
    assert torch.isfinite(mu).all()


def test_limit_power_is_a_projection() -> None:
    network = networks()
    mu = 20 * torch.randn(network.beta.shape, dtype=torch.float64)
    once = limit_power(network, mu)
    assert (once >= 0).all()
    assert (once.square().sum(-2) <= network.power * (1 + 1e-12)).all()
    torch.testing.assert_close(limit_power(network, once), once)
    torch.testing.assert_close(
        limit_power(network, 0.1 * fractional(network)), 0.1 * fractional(network)
    )


@pytest.mark.parametrize("users", [6, 14])  # 14 share 10 pilots
def test_sum_rate_beats_the_simple_allocations_within_the_limits(users: int) -> None:
    network = networks(users)
    assert (network.pilots is None) == (users <= 10)
    found = maximise_sum_rate(network)
    assert (found.mu[~network.serving] == 0).all()
    assert (found.mu.square().sum(-2) <= network.power * (1 + 1e-9)).all()
    value = spectral_efficiency(network, found.mu).sum(-1)
    torch.testing.assert_close(value, found.value)
    for simple in (equal(network), fractional(network)):
        assert (found.value > spectral_efficiency(network, simple).sum(-1)).all()


def test_sum_rate_ends_where_no_small_move_helps() -> None:
    network = networks(14)
    found = maximise_sum_rate(network, tolerance=1e-9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        move = torch.randn(found.mu.shape, generator=generator, dtype=torch.float64) * 0.05
        moved = limit_power(network, found.mu * (1 + move))
        assert (spectral_efficiency(network, moved).sum(-1) <= found.value * (1 + 1e-6)).all()


def test_weights_move_rates_towards_their_users() -> None:
    network = networks()
    weights = torch.tensor([10.0, 1, 1, 1, 1, 1], dtype=torch.float64)
    plain = spectral_efficiency(network, maximise_sum_rate(network).mu)
    favoured = spectral_efficiency(network, maximise_sum_rate(network, weights=weights).mu)
    assert (favoured[:, 0] > plain[:, 0]).all()


def test_permuting_users_and_aps_permutes_the_powers() -> None:
    network = networks(14)
    users = torch.randperm(14, generator=torch.Generator().manual_seed(1))
    aps = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    swapped = CellFree(
        network.beta[:, users][..., aps],
        network.gamma[:, users][..., aps],
        network.power[:, aps],
        network.antennas[:, aps],
        network.serving[:, users][..., aps],
        network.pilots[:, users],
    )
    mu = fractional(network)
    torch.testing.assert_close(fractional(swapped), mu[:, users][..., aps])
    torch.testing.assert_close(sinr(swapped, fractional(swapped)), sinr(network, mu)[:, users])


def test_a_user_nobody_serves_is_refused() -> None:
    beta = torch.ones(2, 3, 4)
    serving = torch.ones(2, 3, 4, dtype=torch.bool)
    serving[1, 2] = False
    with pytest.raises(InputError, match="no access point serves user 2"):
        cell_free(beta, 0.5 * beta, 1.0, serving=serving)


def test_no_starts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        maximise_sum_rate(networks(), starts=[])
