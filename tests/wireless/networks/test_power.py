# SPDX-License-Identifier: Apache-2.0
"""The power network: what it is without training, its limits, symmetries and two paths."""

import operator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.networks.multipliers import OBJECTIVES, Objective, know, listen, value
from fieldfare.wireless.networks.power import (
    IcgnnPower,
    allocate,
    allocate_ragged,
)
from fieldfare.wireless.signals.cell_free import CellFree, cell_free, sinr, spectral_efficiency
from fieldfare.wireless.signals.power_baselines import fractional
from fieldfare.wireless.signals.satisfaction import Profile, mean_satisfaction, spent
from fieldfare.wireless.training.samples import draw_profiles

SIZES = [(1, 1, None), (2, 4, 2), (5, 12, 4), (12, 8, None), (14, 9, 3)]


def drawn(users: int, aps: int, serving: int | None, count: int = 4) -> CellFree:
    generator = torch.Generator().manual_seed(users)
    return draw_networks(
        count, users, aps, 2, serving_aps=serving, generator=generator, dtype=torch.float64
    )


@pytest.fixture
def network() -> IcgnnPower:
    """Of random weights: what holds for these holds for any."""
    return random_network("max-min")


def random_network(objective: Objective) -> IcgnnPower:
    torch.manual_seed(0)
    found = IcgnnPower(8, 3, objective)
    for name, parameter in found.named_parameters():
        if "head" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.uniform_(found.pace, 0.5, 1.5)
    return found.double()


def asked(cells: CellFree) -> Profile:
    return draw_profiles(cells, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("size", SIZES)
def test_it_is_never_worse_than_fractional_allocation(
    size: tuple[int, int, int | None], objective: Objective
) -> None:
    cells = drawn(*size)
    profile = asked(cells) if objective == "satisfaction" else None
    known = know(cells, profile)

    def reached(mu: Tensor) -> Tensor:
        return value(known, listen(known, mu), mu, objective)

    found = reached(allocate(random_network(objective), cells, profile))
    assert (found >= reached(fractional(cells))).all()
    assert (found >= reached(random_network(objective).run(known)[-1][0].mu)).all()


def test_satisfaction_counts_what_users_ask_for() -> None:
    """Who asks for nothing is given less, and where none asks for much less power is spent."""
    cells = drawn(5, 12, 4)
    profile = asked(cells)
    steps = IcgnnPower(8, 30, "satisfaction").double()
    modest = profile._replace(
        adequate=0.1 * profile.adequate.double(), desired=0.1 * profile.desired.double()
    )
    first, less = (allocate(steps, cells, one) for one in (profile, modest))
    assert (spent(cells, less) < spent(cells, first)).all()
    assert (mean_satisfaction(cells, less, modest) > 0.85).all()


@pytest.mark.parametrize("size", SIZES)
def test_powers_keep_to_the_limits_and_to_served_pairs(
    network: IcgnnPower, size: tuple[int, int, int | None]
) -> None:
    cells = drawn(*size)
    mu = allocate(network, cells)
    assert mu.isfinite().all()
    assert (mu.square().sum(-2) <= cells.power * (1 + 1e-9)).all()
    assert (mu[~cells.serving] == 0).all()


def test_networks_of_any_sizes_equal_the_dense_path(network: IcgnnPower) -> None:
    singles = [drawn(*size).map(operator.itemgetter(0)) for size in SIZES]
    for cells, mu in zip(singles, allocate_ragged(network, singles), strict=True):
        last, _ = network.run(know(cells.map(lambda part: part.unsqueeze(0))))[-1]
        torch.testing.assert_close(mu, last.mu[0], rtol=0, atol=1e-6)


def test_users_and_access_points_change_places(network: IcgnnPower) -> None:
    cells = drawn(5, 12, 4)
    users, aps = torch.randperm(5), torch.randperm(12)
    moved = cell_free(
        cells.beta[:, users][:, :, aps],
        cells.gamma[:, users][:, :, aps],
        cells.power[:, aps],
        cells.antennas[:, aps],
        cells.serving[:, users][:, :, aps],
    )
    expected = allocate(network, cells)[:, users][:, :, aps]
    torch.testing.assert_close(allocate(network, moved), expected)


def untrained(steps: int) -> IcgnnPower:
    """The fixed-point steps alone, without what training adds."""
    return IcgnnPower(4, steps).double()


def test_fixed_point_steps_alone_end_at_the_max_min_optimum(reference: Path) -> None:
    for name, antennas in (("L4_K2_N1", 1), ("L8_K3_N1", 1), ("L10_K4_N2", 2), ("L25_K6_N4", 4)):
        stored = np.load(reference / "wireless" / f"cellfree_{name}.npz")
        cells = cell_free(
            torch.from_numpy(stored["beta"]),
            torch.from_numpy(stored["gamma"]),
            10**2.3,
            antennas,
        )
        found = spectral_efficiency(cells, allocate(untrained(100), cells)).amin(-1)
        np.testing.assert_allclose(found, stored["se_maxmin"].min(-1), rtol=2e-3)


def test_fixed_point_steps_alone_help_where_users_share_pilots() -> None:
    cells = drawn(14, 40, 12)
    assert cells.pilots is not None

    def lowest(mu: Tensor) -> Tensor:
        return sinr(cells, mu).amin(-1)

    assert (lowest(allocate(untrained(40), cells)) > 1.5 * lowest(fractional(cells))).all()


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(InputError, match="choose one of max-min"):
        IcgnnPower(objective="mean")  # type: ignore[arg-type]
