# SPDX-License-Identifier: Apache-2.0
"""Max-min fairness: the largest SINR that every user can have at once, with a bound that proves it.

The root of user k's SINR is A_k / B_k, A_k = sum_l g_kl mu_kl linear in the powers' roots mu, B_k a
norm: interference beta_kl rho_l^2 (rho_l^2 the power of access point l), contamination C_ki^2 by
users i of k's pilot, noise 1. With multipliers lambda_k the Lagrangian of max t, A_k >= t B_k, has
its optimum at mu_kl = (lambda_k g_kl - e_kl) / c_l, no less than 0: c_l is the price of the access
point's interference, or what keeps it within its power, e_kl what k's signal costs those of its
pilot. A step goes there, then raises the multipliers of users below the mean and lowers the
others': lambda_k <- lambda_k (t / (A_k / B_k))^d, t the geometric mean. Where the smallest SINR
falls the pace d is lowered. That is a convex problem, and the steps end at its optimum; what proves
it is the bound.

Any multipliers and any directions v_k of unit length bound the optimum, for B_k >= <v_k, .>: with
v_k along the present B_k, the largest value of sum_k lambda_k (A_k - t <v_k, .>) over all powers
has a closed form,

    f(t) = sum_l sqrt(P_l) max(0, |max(0, lambda g_l - t e_l)| - t c_l rho_l)
           - t sum_k lambda_k / B_k,

and no powers give all users more than the t at which it vanishes. f is convex and falls, so that
Newton's method finds it.

Source: the problem: Ngo et al. 2017 (doi 10.1109/TWC.2017.2655515); steps and bound are this
package's own.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .cell_free import CellFree, coherent_gain, pilot_leakage, shared_pilots
from .power_baselines import fractional

EVERY = 8
"""Steps between two bounds."""

NEWTON = 12
FLOOR, COOLING = 0.05, 0.8
"""Least share of a power that the cost to users of its pilot leaves at first; less every step."""

SLOWER, FASTER, SLOWEST = 0.7, 1.02, 0.02
WARM_UP = 3
TINY = 1e-300


class MaxMinResult(NamedTuple):
    """mu (..., K, L) and its smallest SINR (...), linear; no allocation exceeds `upper_bound`."""

    mu: Tensor
    min_sinr: Tensor
    upper_bound: Tensor


class _Heard(NamedTuple):
    """A_k, B_k (B, K), rho_l (B, L), and C_ki (B, K, K) or None."""

    wanted: Tensor
    unwanted: Tensor
    radiated: Tensor
    cross: Tensor | None


def max_min(network: CellFree, *, tolerance: float = 1e-6, max_steps: int = 2000) -> MaxMinResult:
    """The optimum of the smallest SINR, in double precision.

    Args:
        network: see `CellFree`, every user served by some access point; pilots are taken into
            account.
        tolerance: a network stops once the root of its smallest SINR is so near its bound,
            relatively.
        max_steps: 1e-6 takes 30 to 300.

    Returns:
        Powers within the limits, their smallest SINR, and the bound; float64.
    """
    leading = network.beta.shape[:-2]
    network = flatten(network)
    gain, leak = coherent_gain(network), pilot_leakage(network)
    shared = None if network.pilots is None else shared_pilots(network.pilots)
    mu = fractional(network)
    level = (gain * mu).sum(-1) / gain.square().sum(-1).clamp_min(TINY)
    best_mu, best = mu, mu.new_zeros(len(mu))
    upper, before, pace = torch.full_like(best, torch.inf), best, torch.ones_like(best)
    going, floor = torch.ones_like(best, dtype=torch.bool), FLOOR
    for step in range(max_steps):
        heard = _listen(network, gain, leak, shared, mu)
        ratio = heard.wanted / heard.unwanted
        lowest = ratio.amin(-1)
        better = going & (lowest > best)
        best, best_mu = (
            torch.where(better, lowest, best),
            torch.where(better[:, None, None], mu, best_mu),
        )
        if step % EVERY == EVERY - 1:
            proof = bound(network, gain, leak, level, heard, best)
            upper = torch.where(going, torch.minimum(upper, proof), upper)
            going = going & (upper > best * (1 + tolerance))
            if not bool(going.any()):
                break
        if step > WARM_UP:
            slower, faster = (pace * SLOWER).clamp_min(SLOWEST), (pace * FASTER).clamp_max(1)
            pace = torch.where(lowest < before * (1 - 1e-9), slower, faster)
        before = lowest
        logs = ratio.clamp_min(1e-150).log()
        mean = logs.mean(-1, keepdim=True)
        level = level * (pace[:, None] * (mean - logs)).clamp_min(-600).exp()
        level = level / level.sum(-1, keepdim=True)
        price = level * mean.exp() / heard.unwanted
        push = level.unsqueeze(-1) * gain
        if heard.cross is not None:
            push = torch.maximum(push - _costs(network, leak, price, heard.cross), push * floor)
        most = (push.square().sum(-2) / network.power).sqrt()
        spread = torch.maximum((price.unsqueeze(-1) * network.beta).sum(-2), most)
        aim = push / spread.clamp_min(TINY).unsqueeze(-2)
        mu = mu + pace[:, None, None] * (aim - mu)
        floor *= COOLING
    found = best_mu.reshape(*leading, *best_mu.shape[1:])
    return MaxMinResult(found, best.square().reshape(leading), upper.square().reshape(leading))


def bound(
    network: CellFree, gain: Tensor, leak: Tensor, level: Tensor, heard: _Heard, lowest: Tensor
) -> Tensor:
    """No powers give all users a greater root of their SINR, (B,); infinite where none is found.

    Args:
        network: (B, K, L); gain, leak: of `coherent_gain` and `pilot_leakage`.
        level: (B, K), any multipliers.
        heard: of any powers, better the nearer to their optimum.
        lowest: (B,), a smallest root of a SINR that was reached.
    """
    price = level / heard.unwanted
    slack = (price.unsqueeze(-1) * network.beta).sum(-2) * heard.radiated
    fixed, limit = price.sum(-1), network.power.sqrt()
    own, cost = level.unsqueeze(-1) * gain, torch.zeros_like(gain)
    if heard.cross is not None:
        cost = _costs(network, leak, price, heard.cross)
    target = lowest
    for number in range(NEWTON + 1):
        target = target if number < NEWTON else target * (1 + 1e-9)
        push = (own - target[:, None, None] * cost).clamp_min(0)
        length = push.square().sum(-2).sqrt()
        left = length - target.unsqueeze(-1) * slack
        edge = slack + (push * cost).sum(-2) / length.clamp_min(TINY)
        value = (limit * left.clamp_min(0)).sum(-1) - target * fixed
        slope = (limit * edge * (left > 0)).sum(-1) + fixed
        if number < NEWTON:
            target = target + (value / slope).clamp_min(0)
    return torch.where(value > 0, torch.inf, target)


def flatten(network: CellFree) -> CellFree:
    """One leading dimension, float64, on the CPU."""
    leading = network.beta.dim() - 2

    def one(part: Tensor) -> Tensor:
        part = part.detach().cpu()
        part = part.double() if part.is_floating_point() else part
        return part.reshape(-1, *part.shape[leading:])

    return network.map(one)


def _listen(
    network: CellFree, gain: Tensor, leak: Tensor, shared: Tensor | None, mu: Tensor
) -> _Heard:
    radiated = mu.square().sum(-2)
    noise = (network.beta @ radiated.unsqueeze(-1)).squeeze(-1) + 1
    cross = None
    if shared is not None:
        cross = torch.where(shared, network.beta @ (leak * mu).mT, 0.0)
        noise = noise + cross.square().sum(-1)
    return _Heard((gain * mu).sum(-1), noise.sqrt(), radiated.sqrt(), cross)


def _costs(network: CellFree, leak: Tensor, price: Tensor, cross: Tensor) -> Tensor:
    """e_il = leak_il sum_k price_k C_ki beta_kl, (B, K, L)."""
    return leak * ((price.unsqueeze(-1) * cross).mT @ network.beta)
