# SPDX-License-Identifier: Apache-2.0
"""Greedy user selection against trying every user in turn, and precoders on a selection."""

import pytest
import torch
from torch import Tensor

from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.signals.linear import rzf
from fieldfare.wireless.signals.rates import squared_magnitude, sum_rate
from fieldfare.wireless.signals.selection import greedy_rzf, greedy_users


def channel(*size: int, seed: int = 0) -> Tensor:
    return rayleigh(size, torch.Generator().manual_seed(seed), torch.complex128)


def tried_in_turn(H: Tensor, power: float, weights: Tensor) -> set[int]:
    """Greedy selection of one channel by the downlink's rates under RZF."""
    chosen: list[int] = []
    value = 0.0
    while len(chosen) < len(H):
        found = {}
        for user in set(range(len(H))) - set(chosen):
            users = [*chosen, user]
            W = rzf(H[users], power)
            found[user] = float(sum_rate(H[users], W, 1.0, weights[users]))
        user = max(found, key=lambda name: found[name])
        if found[user] <= value:
            break
        value = found[user]
        chosen.append(user)
    return set(chosen)


@pytest.mark.parametrize("power", [0.01, 1.0, 100.0, 1e6])
@pytest.mark.parametrize("size", [(6, 3), (4, 4), (3, 8)])
def test_it_is_greedy_selection(size: tuple[int, int], power: float) -> None:
    H = channel(8, *size)
    weights = torch.rand(8, size[0], dtype=torch.float64) + 0.2
    served = greedy_users(H, power, 1.0, weights)
    rates = sum_rate(
        H, greedy_rzf(H, torch.full((8,), power), torch.ones(8), weights), 1.0, weights
    )
    for index in range(8):
        users = sorted(tried_in_turn(H[index], power, weights[index]))
        few = H[index][users]
        best = sum_rate(few, rzf(few, power), 1.0, weights[index][users])
        assert served[index].any()
        assert rates[index] >= 0.99 * best


def test_users_without_channel_or_weight_are_never_served() -> None:
    H = channel(4, 5, 3)
    H[1, 2] = 0
    weights = torch.ones(4, 5, dtype=torch.float64)
    weights[3, 0] = 0
    served = greedy_users(H, 100.0, 1.0, weights)
    assert not served[1, 2]
    assert not served[3, 0]
    W = greedy_rzf(H, torch.full((4,), 100.0), torch.ones(4), weights)
    assert not W.mT[~served].any()
    torch.testing.assert_close(
        squared_magnitude(W).sum((-2, -1)), torch.full((4,), 100.0, dtype=torch.float64)
    )


def test_of_two_users_at_one_place_one_is_served() -> None:
    H = channel(6, 4, 8)
    H[:, 1] = H[:, 0]
    assert (greedy_users(H, 100.0).sum(-1) == 3).all()
