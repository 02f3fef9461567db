# SPDX-License-Identifier: Apache-2.0
"""A few WMMSE steps from the network's point, extrapolated: more rate for each linear system.

Up to phases that no rate depends on, what WMMSE carries from step to step are two positive numbers
of every user, the share of virtual uplink power and the power before columns get their length.
Their logarithms follow a slowly converging fixed-point map, which squared extrapolation (SQUAREM)
speeds up: every two steps give a direction, and the third evaluates a point far along it. The best
point met is returned, so that the weighted sum rate never falls.

Source: WMMSE, Shi, Razaviyayn, Luo, He 2011 (doi 10.1109/TSP.2011.2147784); SQUAREM, Varadhan,
Roland 2008 (doi 10.1111/j.1467-9469.2007.00585.x), scheme S3.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..signals.linear import gram, normalise
from ..signals.rates import Level, expand_level, split_received, squared_magnitude
from ..signals.solve import Solver, solve_hermitian

LEAST_SHARE = 1e-9
"""Of uplink power, so that every user keeps a direction."""

LEAST = -30.0
"""Of the logarithms: a user this far below the others is switched off."""

MOST = 32.0
"""Longest extrapolation, in steps."""


class _Point(NamedTuple):
    """X of W = H^H X (B, K, K), its weighted sum rate (B,), and the next state (B, 2, K)."""

    X: Tensor
    value: Tensor
    following: Tensor


def refine(
    H: Tensor,
    W: Tensor,
    power: Level = 1.0,
    noise_power: Level = 1.0,
    *,
    steps: int = 3,
    weights: Tensor | None = None,
    solver: Solver = "cholesky",
) -> Tensor:
    """Improve any precoder by accelerated WMMSE steps; never lowers the weighted sum rate.

    Args:
        H: (..., K, N) complex.
        W: (..., N, K) of total power `power` or less.
        power, noise_power: numbers or broadcastable to (...).
        steps: linear systems to solve.
        weights: broadcastable to (..., K).
        solver: as for `solve_hermitian`.

    Returns:
        (..., N, K), of power `power` where it improves on W.
    """
    if not steps:
        return W
    leading, users = H.shape[:-2], H.shape[-2]
    share = H.real.new_ones(users) if weights is None else weights.to(H.real.dtype)
    share = share.expand(*leading, users).reshape(-1, users)
    scale = expand_level(power, H, 2) / expand_level(noise_power, H, 2)
    A = (gram(H) * scale).reshape(-1, users, users)
    received = H @ W / expand_level(noise_power, H, 2).sqrt()
    used = squared_magnitude(W).sum((-2, -1)) / expand_level(power, H, 0)
    received = received.reshape(-1, users, users)
    used = used.expand(leading).reshape(-1, 1)
    value = (share * _rates(received)).sum(-1)

    X = torch.zeros_like(A)
    improved = torch.zeros_like(value, dtype=torch.bool)
    state = _next_state(received, used, share)
    history = [state]
    plain: _Point | None = None  # what an extrapolated point has to beat
    for _ in range(steps):
        point = _evaluate(A, state, share, solver)
        better = point.value >= value
        X = torch.where(better[:, None, None], point.X, X)
        value = torch.where(better, point.value, value)
        improved = improved | better
        if plain is not None:
            won = (point.value >= plain.value)[:, None, None]
            state = torch.where(won, point.following, plain.following)
            history, plain = [state], None
            continue
        state = point.following
        history.append(state)
        if len(history) == 3:
            state, plain = _extrapolate(history), point
    refined = normalise(H.mH @ X.reshape(*leading, users, users), power, "total")
    return torch.where(improved.reshape(leading)[..., None, None], refined, W)


def _evaluate(A: Tensor, state: Tensor, weights: Tensor, solver: Solver) -> _Point:
    """W of a state, in units of the noise and with all the power, and its WMMSE update."""
    log_uplink, log_side = state.unbind(1)
    uplink = torch.softmax(log_uplink, -1).clamp_min(LEAST_SHARE)
    root = uplink.sqrt().unsqueeze(-1)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    inverse = solve_hermitian(root * A * root.mT + eye, eye.expand_as(A), solver=solver)
    side = (0.5 * (log_side - log_side.amax(-1, keepdim=True))).exp().unsqueeze(-2)
    X = root * inverse * side
    image = A @ X
    norm = (X.conj() * image).real.sum((-2, -1), keepdim=True)
    length = norm.rsqrt()
    received = image * length
    value = (weights * _rates(received)).sum(-1)
    return _Point(X * length, value, _next_state(received, None, weights))


def _rates(received: Tensor) -> Tensor:
    signal, interference = split_received(received)
    return torch.log1p(signal / (interference + 1)) / math.log(2)


def _next_state(received: Tensor, used: Tensor | None, weights: Tensor) -> Tensor:
    """Logarithms of the uplink shares and of the column powers that WMMSE goes on with, (B, 2, K).

    Args:
        received: (B, K, K), H W over the root of the noise.
        used: (B, 1), share of the power that W spends; all of it if None.
        weights: (B, K).
    """
    signal, interference = split_received(received)
    unwanted = interference + (1 if used is None else used)
    total = signal + unwanted
    uplink = weights * signal / (unwanted * total)
    side = weights * total / unwanted
    state = torch.stack([uplink.clamp_min(1e-30).log(), side.log()], 1)
    state = state - state.amax(-1, keepdim=True)
    return state.clamp_min(LEAST)


def _extrapolate(history: list[Tensor]) -> Tensor:
    """From three successive states to one far along: s0 + 2 a r + a^2 v."""
    first, second, third = history
    r = second - first
    v = (third - second) - r
    length = _squared(r) / _squared(v).clamp_min(1e-20)
    a = length.sqrt().clamp(1, MOST)
    return (first + 2 * a * r + a.square() * v).clamp(LEAST, -LEAST)


def _squared(values: Tensor) -> Tensor:
    """Squared length over users and both numbers, (B, 1, 1)."""
    return values.square().sum((-2, -1), keepdim=True)
