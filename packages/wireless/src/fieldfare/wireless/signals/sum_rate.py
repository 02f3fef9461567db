# SPDX-License-Identifier: Apache-2.0
"""Sum of the spectral efficiencies, raised to a local optimum by WMMSE-scaled gradient steps."""

from typing import NamedTuple

import torch
from torch import Tensor

from .cell_free import (
    CellFree,
    coherent_gain,
    limit_power,
    pilot_leakage,
    shared_pilots,
    sinr,
    spectral_efficiency,
)
from .power_baselines import equal, fractional


class SumRateResult(NamedTuple):
    """mu (..., K, L), its weighted sum SE (...) in bits/s/Hz, the iterations of all starts."""

    mu: Tensor
    value: Tensor
    iterations: int


def maximise_sum_rate(
    network: CellFree,
    *,
    weights: Tensor | None = None,
    starts: list[Tensor] | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 2000,
) -> SumRateResult:
    """Maximise sum_k weights_k SE_k over the powers, from several starts; the best one counts.

    The WMMSE objective with its receivers and error weights held is a concave quadratic that
    touches the sum SE at the present mu and lies below it. A diagonal bound on its curvature
    gives every AP the step that needs no line search; the limits of an AP (non-negative, on a
    ball) are met by exact projection. Nesterov's momentum, dropped when the value falls,
    replaces the slow crawl of plain projected gradients.

    Args:
        network: see `CellFree`; pilots are taken into account.
        weights: positive, broadcastable to (..., K).
        starts: of (..., K, L) each; fractional and equal allocation by default. The max-min
            powers make a good third.
        tolerance: relative change over 10 iterations at which all networks must have arrived.
        max_iterations: limit per start.

    Returns:
        A local optimum.

    Source: surrogate: Shi, Razaviyayn, Luo, He 2011 (doi 10.1109/TSP.2011.2147784); momentum with
    restart: O'Donoghue and Candès 2015 (arXiv 1204.3982).
    """
    if starts is None:
        starts = [fractional(network), equal(network), fractional(network, -0.5)]
    users = network.beta.shape[:-1]
    share = torch.ones_like(network.beta[..., 0]) if weights is None else weights.expand(users)
    best: SumRateResult | None = None
    for start in starts:
        run = _ascend(network, start, share, tolerance, max_iterations)
        if best is None:
            best = run
            continue
        higher = run.value > best.value
        best = SumRateResult(
            torch.where(higher[..., None, None], run.mu, best.mu),
            torch.maximum(run.value, best.value),
            best.iterations + run.iterations,
        )
    if best is None:
        raise ValueError("starts: give at least one")
    return best


def _ascend(
    network: CellFree, start: Tensor, weights: Tensor, tolerance: float, max_iterations: int
) -> SumRateResult:
    mu = limit_power(network, start)
    value = _value(network, mu, weights)
    point, momentum = mu, torch.ones_like(value)
    earlier = value
    iteration = 0
    for iteration in range(1, max_iterations + 1):
        gradient, curvature = _surrogate(network, point, weights)
        moved = limit_power(network, point + gradient / curvature)
        reached = _value(network, moved, weights)
        fallen = (reached < value)[..., None, None]
        # A step that fell is not taken; the next one starts at mu again, without momentum.
        following = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        push = ((momentum - 1) / following)[..., None, None]
        point = torch.where(fallen, mu, limit_power(network, moved + push * (moved - mu)))
        mu = torch.where(fallen, mu, moved)
        momentum = torch.where(reached < value, torch.ones_like(following), following)
        value = torch.maximum(reached, value)
        if iteration % 10 == 0:
            if bool((value - earlier <= tolerance * value).all()):
                break
            earlier = value
    return SumRateResult(mu, value, iteration)


def _value(network: CellFree, mu: Tensor, weights: Tensor) -> Tensor:
    return (weights * spectral_efficiency(network, mu)).sum(-1)


def _surrogate(network: CellFree, mu: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the sum SE in nats, (..., K, L), and the curvature of every AP, (..., 1, L).

    The quadratic of user i is c_i g_i g_i^T + diag_l(sum_k c_k beta_kl), with g the coherent gain
    and c_k = a_k SINR_k / ((1 + SINR_k) unwanted_k); c_i g_i g_i^T <= diag(c_i g_il sum_j g_ij).
    """
    with torch.enable_grad():
        mu = mu.detach().requires_grad_()
        ratio = sinr(network, mu)
        (gradient,) = torch.autograd.grad((weights * torch.log1p(ratio)).sum(), mu)
    ratio, mu = ratio.detach(), mu.detach()
    gain = coherent_gain(network)
    wanted = (gain * mu).sum(-1).square()
    tiny = torch.finfo(wanted.dtype).tiny
    # SINR / unwanted = SINR^2 / wanted; a user at zero power has neither gradient nor curvature.
    scale = weights * ratio.square() / ((1 + ratio) * wanted.clamp_min(tiny))
    own = scale.unsqueeze(-1) * gain * gain.sum(-1, keepdim=True)
    if network.pilots is not None:
        # The same bound for c_k v_ki v_ki^T, v_kil = beta_kl leakage_il, without a (K, K, L) array.
        leakage = pilot_leakage(network)
        total = torch.where(shared_pilots(network.pilots), network.beta @ leakage.mT, 0.0)
        own = own + leakage * ((scale.unsqueeze(-1) * total).mT @ network.beta)
    common = (scale.unsqueeze(-1) * network.beta).sum(-2)
    curvature = 2 * (common + own.amax(-2)).unsqueeze(-2)
    return gradient, curvature.clamp_min(tiny)
