# SPDX-License-Identifier: Apache-2.0
"""Max-min by cone programs, the check of `max_min` that shares nothing with it."""

import sys

import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.wireless.channels.drops import draw_networks
from fieldfare.wireless.signals.cell_free import CellFree, sinr
from fieldfare.wireless.signals.cone_programs import max_min_socp
from fieldfare.wireless.signals.max_min import max_min
from fieldfare.wireless.signals.power_baselines import fractional


def networks(users: int, serving_aps: int | None = None, drops: int = 2) -> CellFree:
    generator = torch.Generator().manual_seed(3)
    return draw_networks(
        drops, users, 16, 2, serving_aps=serving_aps, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize(("users", "serving_aps"), [(4, None), (8, 6), (14, 8)])
def test_both_ways_end_at_the_same_optimum(users: int, serving_aps: int | None) -> None:
    pytest.importorskip("cvxpy")
    network = networks(users, serving_aps)
    found, ours = max_min_socp(network), max_min(network)
    assert (found.mu[~network.serving] == 0).all()
    assert (found.mu.square().sum(-2) <= network.power * (1 + 1e-9)).all()
    torch.testing.assert_close(sinr(network, found.mu).amin(-1), found.min_sinr)
    assert (found.upper_bound <= found.min_sinr * (1 + 1e-3)).all()
    torch.testing.assert_close(found.min_sinr, ours.min_sinr, rtol=1e-5, atol=0)
    for other, bound in ((ours.min_sinr, found.upper_bound), (found.min_sinr, ours.upper_bound)):
        assert (other <= bound * (1 + 1e-7)).all()


def test_one_user_gets_all_power_and_leading_dimensions_stay() -> None:
    pytest.importorskip("cvxpy")
    network = networks(1, drops=4).map(lambda part: part.reshape(2, 2, *part.shape[1:]))
    everything = sinr(network, fractional(network))[..., 0]
    found = max_min_socp(network)
    assert found.mu.shape == (2, 2, 1, 16)
    assert (found.min_sinr >= everything * (1 - 1e-6)).all()


@pytest.mark.parametrize("missing", ["cvxpy", "clarabel"])
def test_a_missing_solver_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install 'fieldfare-wireless\[socp\]'"):
        max_min_socp(networks(2))
