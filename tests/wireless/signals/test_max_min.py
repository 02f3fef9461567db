# SPDX-License-Identifier: Apache-2.0
"""Max-min fairness: the optimum, the bound that proves it, and the compiled loops."""

import operator
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.wireless.cell_free.methods import baseline
from fieldfare.wireless.channels.drops import DropSettings, draw_networks
from fieldfare.wireless.networks.kernels import powers
from fieldfare.wireless.signals.cell_free import CellFree, cell_free, sinr
from fieldfare.wireless.signals.max_min import max_min
from fieldfare.wireless.signals.power_baselines import equal, fractional

SIZES = ("L4_K2_N1", "L8_K3_N1", "L10_K4_N2", "L25_K6_N4")
DRAWN = [(1, 4, None), (4, 16, None), (8, 16, 6), (14, 9, 3), (30, 20, 10), (40, 12, None)]


def networks(users: int, aps: int, serving_aps: int | None = None, drops: int = 3) -> CellFree:
    generator = torch.Generator().manual_seed(3)
    return draw_networks(
        drops, users, aps, 2, serving_aps=serving_aps, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize("size", SIZES)
def test_it_ends_at_the_optimum_of_the_reference(reference: Path, size: str) -> None:
    stored = np.load(reference / "wireless" / f"cellfree_{size}.npz")
    beta, gamma = torch.from_numpy(stored["beta"]), torch.from_numpy(stored["gamma"])
    found = max_min(cell_free(beta, gamma, float(stored["P"]), int(stored["N"])))
    expected = stored["se_maxmin"].min(-1)
    np.testing.assert_allclose(torch.log2(1 + found.min_sinr), expected, rtol=2e-6)
    assert (found.upper_bound <= found.min_sinr * (1 + 3e-6)).all()


@pytest.mark.parametrize("size", DRAWN)
def test_the_bound_closes_and_limits_are_kept(size: tuple[int, int, int | None]) -> None:
    network = networks(*size)
    found = max_min(network)
    assert (found.upper_bound <= found.min_sinr * (1 + 3e-6)).all()
    assert (found.upper_bound >= found.min_sinr).all()
    assert (found.mu[~network.serving] == 0).all()
    assert (found.mu >= 0).all()
    assert (found.mu.square().sum(-2) <= network.power * (1 + 1e-9)).all()
    torch.testing.assert_close(sinr(network, found.mu).amin(-1), found.min_sinr)


def test_no_powers_pass_the_bound_that_a_few_steps_give() -> None:
    network = networks(8, 16, 6)
    best, few = max_min(network).min_sinr, max_min(network, max_steps=16)
    assert (few.upper_bound >= best).all()
    assert (few.upper_bound > few.min_sinr * 1.001).all()
    for other in (fractional(network), equal(network), few.mu):
        assert (sinr(network, other).amin(-1) <= few.upper_bound).all()


@pytest.mark.parametrize("size", DRAWN)
def test_compiled_it_is_the_same(size: tuple[int, int, int | None]) -> None:
    network = networks(*size, drops=11)
    found, expected = powers.max_min(network, max_steps=24), max_min(network, max_steps=24)
    torch.testing.assert_close(found.mu, expected.mu, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.min_sinr, expected.min_sinr, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.upper_bound, expected.upper_bound, rtol=1e-9, atol=0)
    proved = powers.max_min(network)
    assert (proved.upper_bound <= proved.min_sinr * (1 + 3e-6)).all()


def test_a_network_gives_the_same_bits_alone_and_among_others() -> None:
    network = networks(14, 9, 3, drops=40)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = powers.max_min(network).mu
        torch.set_num_threads(2)
        assert torch.equal(powers.max_min(network).mu, whole)
        for part in (slice(5, 6), slice(3, 14)):
            found = powers.max_min(network.map(operator.itemgetter(part))).mu
            assert torch.equal(found, whole[part])
    finally:
        torch.set_num_threads(threads)


def test_what_is_not_proved_is_told() -> None:
    generator = torch.Generator().manual_seed(5)
    hard = DropSettings(side_m=100, shadowing_db=12)
    network = draw_networks(
        24, 5, 3, 1, serving_aps=1, settings=hard, generator=generator, dtype=torch.float64
    )
    with pytest.warns(RuntimeWarning, match=r"on \d+ networks the bound stayed up to 0\.\d+ %"):
        baseline("max-min")(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline("max-min")(networks(4, 16))


def test_leading_dimensions_stay() -> None:
    network = networks(2, 5, drops=4)
    folded = network.map(lambda part: part.reshape(2, 2, *part.shape[1:]))
    for method in (max_min, powers.max_min):
        found = method(folded)
        assert found.mu.shape == (2, 2, 2, 5)
        torch.testing.assert_close(found.min_sinr.flatten(), method(network).min_sinr)
