# SPDX-License-Identifier: Apache-2.0
"""Max-min fairness: the optimum by cone programs, and without a solver."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.signals.cell_free import CellFree, cell_free, sinr
from fieldfare.wireless.signals.max_min import max_min_gradient, max_min_socp
from fieldfare.wireless.signals.power_baselines import fractional

SIZES = ("L4_K2_N1", "L8_K3_N1", "L10_K4_N2", "L25_K6_N4")


def networks(users: int, serving_aps: int | None = None, drops: int = 2) -> CellFree:
    generator = torch.Generator().manual_seed(3)
    return draw_networks(
        drops, users, 16, 2, serving_aps=serving_aps, generator=generator, dtype=torch.float64
    )


def stored_networks(reference: Path, size: str) -> tuple[np.ndarray, CellFree]:
    stored = np.load(reference / "wireless" / f"cellfree_{size}.npz")
    beta, gamma = torch.from_numpy(stored["beta"]), torch.from_numpy(stored["gamma"])
    network = cell_free(beta, gamma, float(stored["P"]), int(stored["N"]))
    return stored["se_maxmin"].min(-1), network


@pytest.mark.parametrize("size", SIZES)
def test_cone_programs_equal_the_reference(reference: Path, size: str) -> None:
    pytest.importorskip("cvxpy")
    expected, network = stored_networks(reference, size)
    found = max_min_socp(network)
    np.testing.assert_allclose(torch.log2(1 + found.min_sinr), expected, rtol=1e-6)
    assert (found.upper_bound <= found.min_sinr * (1 + 1e-4)).all()


@pytest.mark.parametrize("size", SIZES)
def test_gradients_come_within_half_a_per_cent(reference: Path, size: str) -> None:
    expected, network = stored_networks(reference, size)
    found = torch.log2(1 + max_min_gradient(network).min_sinr).numpy()
    assert (found >= 0.995 * expected).all()
    assert (found <= (1 + 1e-6) * expected).all()


@pytest.mark.parametrize(("users", "serving_aps"), [(4, None), (8, 6), (14, 8)])
def test_bound_equality_and_limits(users: int, serving_aps: int | None) -> None:
    pytest.importorskip("cvxpy")
    network = networks(users, serving_aps)
    found = max_min_socp(network)
    assert (found.mu[~network.serving] == 0).all()
    assert (found.mu.square().sum(-2) <= network.power * (1 + 1e-9)).all()
    ratio = sinr(network, found.mu)
    torch.testing.assert_close(ratio.amin(-1), found.min_sinr)
    assert (found.upper_bound <= found.min_sinr * (1 + 1e-3)).all()
    for other in (fractional(network), max_min_gradient(network, steps=300).mu):
        assert (sinr(network, other).amin(-1) <= found.upper_bound).all()
    if serving_aps is None:  # all users end equal where every one can be traded against another
        torch.testing.assert_close(
            ratio, found.min_sinr[:, None].expand_as(ratio), rtol=1e-3, atol=0
        )


def test_one_user_gets_all_power() -> None:
    pytest.importorskip("cvxpy")
    network = networks(1)
    everything = sinr(network, fractional(network))
    found = max_min_socp(network).min_sinr
    assert (found >= everything[:, 0] * (1 - 1e-6)).all()


def test_result_keeps_the_leading_dimensions() -> None:
    pytest.importorskip("cvxpy")
    network = networks(2, drops=4)
    folded = network.map(lambda part: part.reshape(2, 2, *part.shape[1:]))
    found = max_min_socp(folded)
    assert found.mu.shape == (2, 2, 2, 16)
    torch.testing.assert_close(found.min_sinr.flatten(), max_min_socp(network).min_sinr)


@pytest.mark.parametrize("missing", ["cvxpy", "clarabel"])
def test_a_missing_solver_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-wireless\[socp\]'"):
        max_min_socp(networks(2))


def test_gradients_prove_nothing() -> None:
    found = max_min_gradient(networks(3), steps=5)
    assert (found.upper_bound == math.inf).all()
