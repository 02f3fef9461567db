# SPDX-License-Identifier: Apache-2.0
"""A limit for every antenna: kept, used, and no worse than one factor for all."""

import pytest
import torch

from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.signals.antenna_power import use_antenna_power
from fieldfare.wireless.signals.linear import limit_antenna_power, rzf
from fieldfare.wireless.signals.rates import squared_magnitude, sum_rate
from fieldfare.wireless.signals.wmmse import wmmse

H = rayleigh((8, 4, 6), torch.Generator().manual_seed(0), torch.complex128)


@pytest.mark.parametrize("limit", [10 / 6, 2.0, 2.5, 9.0])
@pytest.mark.parametrize("noise", [0.01, 1.0, 100.0])
def test_both_limits_are_kept_and_used(limit: float, noise: float) -> None:
    start = rzf(H, 10.0, noise)
    W = use_antenna_power(H, start, 10.0, noise, limit)
    rows = squared_magnitude(W).sum(-1)
    assert rows.max() <= limit * (1 + 1e-9)
    assert rows.sum(-1).max() <= 10 * (1 + 1e-9)
    scaled = sum_rate(H, limit_antenna_power(start, limit), noise)
    assert (sum_rate(H, W, noise) >= scaled * (1 - 1e-4)).all()


def test_a_limit_that_never_binds_leaves_wmmse() -> None:
    W = use_antenna_power(H, rzf(H, 10.0, 1.0), 10.0, 1.0, 10.0)
    best = sum_rate(H, wmmse(H, 10.0, 1.0, tolerance=1e-10).W, 1.0)
    assert (sum_rate(H, W, 1.0) >= 0.99 * best).all()


def test_switched_off_users_stay_off() -> None:
    start = rzf(H, 10.0, 1.0)
    start[..., 1] = 0
    assert not use_antenna_power(H, start, 10.0, 1.0, 2.0)[..., 1].any()
