# SPDX-License-Identifier: Apache-2.0
"""Satisfaction of users with a zone of tolerance, and the powers that bring most of it.

Each user has an adequate and a desired rate. Satisfaction is logistic in between, 0.1 at the one
and 0.9 at the other, and flat outside. What maximises its mean serves users up to what they ask
for, and spends nothing beyond.

Source: the zone of tolerance: Alkurd, Abualhaol, Yanikomeroglu (arXiv 2306.04887, abstract); the
curve and the method are this package's own.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .cell_free import CellFree, limit_power, spectral_efficiency
from .max_min import max_min
from .power_baselines import fractional
from .sum_rate import maximise_sum_rate

STEPS, RATE = 250, 0.03
HALVINGS = 12
"""Of the range of prices of power, 1e-4 to 10."""


class Profile(NamedTuple):
    """Adequate and desired spectral efficiency of users, bits/s/Hz, and weights, (..., K)."""

    adequate: Tensor
    desired: Tensor
    weight: Tensor


def satisfaction(rate: Tensor, profile: Profile) -> Tensor:
    """Of every user, 0 to 1, for rates (..., K): logistic, 0.1 at adequate and 0.9 at desired."""
    return torch.sigmoid(slope_of(profile) * (rate - (profile.adequate + profile.desired) / 2))


def slope_of(profile: Profile) -> Tensor:
    """Four times the slope of satisfaction at its steepest, over bits/s/Hz, (..., K)."""
    return 2 * math.log(9) / (profile.desired - profile.adequate)


def mean_satisfaction(network: CellFree, mu: Tensor, profile: Profile) -> Tensor:
    """Weighted mean over the users of every network, (...)."""
    each = satisfaction(spectral_efficiency(network, mu), profile)
    return (each * profile.weight).sum(-1) / profile.weight.sum(-1)


def spent(network: CellFree, mu: Tensor) -> Tensor:
    """Power over the limits of all access points, (...)."""
    return mu.square().sum((-2, -1)) / network.power.sum(-1)


def maximise_satisfaction(
    network: CellFree, profile: Profile, *, starts: list[Tensor] | None = None
) -> Tensor:
    """mu (B, K, L) of the highest mean satisfaction met, at the least power met for it.

    Args:
        network: (B, K, L).
        profile: of its K users.
        starts: of (B, K, L) each; by default those of max-min, of the sum rate and fractional ones,
            so that neither of them is more satisfying.
    """
    if starts is None:
        starts = [
            max_min(network, tolerance=1e-3).mu.to(network.beta),
            maximise_sum_rate(network, max_iterations=500).mu,
            fractional(network),
        ]
    price = torch.full_like(network.beta[..., 0, 0], 1e-4)
    best, value = starts[0], mean_satisfaction(network, starts[0], profile)
    for start in starts:
        for mu in (start, _ascend(network, profile, start, price)):
            reached = mean_satisfaction(network, mu, profile)
            higher = reached > value
            best = torch.where(higher[..., None, None], mu, best)
            value = torch.where(higher, reached, value)
    return best


def least_power(network: CellFree, profile: Profile, wanted: Tensor, start: Tensor) -> Tensor:
    """mu (B, K, L) of little power with a mean satisfaction of `wanted` (B,), at least.

    The price of power is halved upon until satisfaction is what is wanted; then all amplitudes are
    scaled down together to that. A local optimum.

    Args:
        network, profile: as above.
        wanted: no more than `start` reaches; a network that misses it keeps its start.
        start: (B, K, L).
    """
    low = torch.full_like(wanted, math.log(1e-4))
    high = torch.full_like(wanted, math.log(10.0))
    best, power = start, spent(network, start)
    mu = start
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        mu = _ascend(network, profile, mu, middle.exp())
        enough = mean_satisfaction(network, mu, profile) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
        less = enough & (spent(network, mu) < power)
        best = torch.where(less[..., None, None], mu, best)
        power = torch.where(less, spent(network, mu), power)
        mu = torch.where(enough[..., None, None], mu, best)
    return best * _least_scale(network, profile, wanted, best)[..., None, None]


def _least_scale(network: CellFree, profile: Profile, wanted: Tensor, mu: Tensor) -> Tensor:
    low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
    for _ in range(30):
        middle = (low + high) / 2
        enough = mean_satisfaction(network, mu * middle[..., None, None], profile) >= wanted
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high


def _ascend(network: CellFree, profile: Profile, start: Tensor, price: Tensor) -> Tensor:
    """The best point met by projected Adam on satisfaction less price times power."""
    amplitude = network.power.sqrt().unsqueeze(-2)
    x = start / amplitude
    mean, square = torch.zeros_like(x), torch.zeros_like(x)
    best_x, best = x, torch.full_like(price, -torch.inf)
    for step in range(STEPS + 1):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            mu = x * amplitude
            value = mean_satisfaction(network, mu, profile) - price * spent(network, mu)
            (gradient,) = torch.autograd.grad(value.sum(), x)
        x, value = x.detach(), value.detach()
        higher = value > best
        best_x = torch.where(higher[..., None, None], x, best_x)
        best = torch.where(higher, value, best)
        gradient = gradient / gradient.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-30)
        mean, square = mean.lerp(gradient, 0.1), square.lerp(gradient.square(), 0.01)
        moved = (mean / (1 - 0.9 ** (step + 1))) / (
            (square / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8
        )
        x = x + RATE * 0.02 ** (step / STEPS) * moved
        # Not quite to zero, where the gradient of a power vanishes.
        x = (limit_power(network, x * amplitude) / amplitude).clamp_min(1e-6)
    return limit_power(network, best_x * amplitude)
