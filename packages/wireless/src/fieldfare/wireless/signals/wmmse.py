# SPDX-License-Identifier: Apache-2.0
"""Weighted sum-rate maximisation by WMMSE, in as many dimensions as there are users.

The sum-power constraint is built into the objective: the noise counts as noise ||W||^2 / P, and W
is scaled to power P at the end, so that no multiplier has to be searched for. By the push-through
identity every update is W = H^H X with X (K, K), so that an iteration costs the same for 8 as for
256 antennas. WMMSE finds a local optimum: another start may end higher.

Source: Shi, Razaviyayn, Luo, He 2011 (doi 10.1109/TSP.2011.2147784); the scaled noise: Hu et al.
2021 (arXiv 2006.08099); the reduced dimension: Zhao, Lu, Shi, Luo 2022 (arXiv 2205.06225).
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .linear import gram, normalise, rzf
from .rates import Level, expand_level, split_received, squared_magnitude, sum_rate
from .solve import Solver, solve_hermitian


class WmmseResult(NamedTuple):
    """Precoder W (..., N, K), iterations (...) int64, and whether it stopped by itself (...)."""

    W: Tensor
    iterations: Tensor
    converged: Tensor


class _Iterate(NamedTuple):
    """W = H^H X of some norm, seen from the users in units of the noise."""

    X: Tensor  # (B, K, K)
    received: Tensor  # (B, K, K), H W
    noise: Tensor  # (B, 1), ||W||^2 / P

    def rates(self) -> Tensor:
        """Of every user once W is scaled to P, bits/s/Hz: -log2 of its mean squared error."""
        signal, interference = split_received(self.received)
        return torch.log1p(signal / (interference + self.noise)) / math.log(2)


def wmmse(
    H: Tensor,
    power: Level = 1.0,
    noise_power: Level = 1.0,
    *,
    weights: Tensor | None = None,
    start: Tensor | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    restarts: int = 0,
    generator: torch.Generator | None = None,
) -> WmmseResult:
    """Maximise sum_k weights_k rate_k under ||W||_F^2 <= power.

    A channel stops once its weighted sum rate changes by no more than `tolerance` of itself; the
    others go on without it.

    Args:
        H: (..., K, N) complex; any K and N.
        power: total transmit power, a number or broadcastable to (...).
        noise_power: of every user, likewise.
        weights: positive, broadcastable to (..., K); all 1 by default.
        start: (..., N, K), the first W; `rzf` by default.
        tolerance: relative change of the weighted sum rate that ends the iterations. 1e-6 ends
            within about 3e-5 of the optimum, seldom earlier on a plateau (0.6 % low in one of
            16 weighted channels); 1e-10 in complex128 rides over those. In complex64 nothing below
            about 1e-7 can be told from rounding.
        max_iterations: limit per start, at least 1.
        restarts: further runs from random W; the best run of each channel is returned.
        generator: draws the random starts.

    Returns:
        W has power `power`; `iterations` are those of all starts together.
    """
    with torch.no_grad():
        W = rzf(H, power, noise_power) if start is None else start
        best = _run(H, W, power, noise_power, weights, tolerance, max_iterations)
        best_rate = sum_rate(H, best.W, noise_power, weights)
        for _ in range(restarts):
            W = normalise(_random_like(best.W, generator), power, "total")
            run = _run(H, W, power, noise_power, weights, tolerance, max_iterations)
            run_rate = sum_rate(H, run.W, noise_power, weights)
            higher = run_rate > best_rate
            best = WmmseResult(
                torch.where(higher[..., None, None], run.W, best.W),
                best.iterations + run.iterations,
                torch.where(higher, run.converged, best.converged),
            )
            best_rate = torch.where(higher, run_rate, best_rate)
        return best


def refine(
    H: Tensor,
    W: Tensor,
    power: Level = 1.0,
    noise_power: Level = 1.0,
    *,
    steps: int = 1,
    weights: Tensor | None = None,
    solver: Solver = "cholesky",
) -> Tensor:
    """Improve any W by a fixed number of WMMSE steps; differentiable, never lowers the sum rate.

    Args: as for `wmmse`; `solver` as for `solve_hermitian`.

    Returns:
        (..., N, K), of power `power` (W as it is for no steps).
    """
    if steps == 0:
        return W
    H = H / expand_level(noise_power, H, 2).sqrt()
    G = gram(H)
    limit = expand_level(power, H, 1)
    share = limit.new_ones(1) if weights is None else weights.to(limit)
    iterate = _observe(H, W, limit)
    for _ in range(steps):
        iterate = _step(G, iterate, limit, share, solver)
    return normalise(H.mH @ iterate.X, power, "total")


def _run(
    H: Tensor,
    W: Tensor,
    power: Level,
    noise_power: Level,
    weights: Tensor | None,
    tolerance: float,
    max_iterations: int,
) -> WmmseResult:
    """Iterate from W until every channel has stopped, in units of the noise."""
    # Not torch.broadcast_shapes, which loads sympy.
    leading = np.broadcast_shapes(H.shape[:-2], W.shape[:-2])
    users, antennas = H.shape[-2:]
    H = H / expand_level(noise_power, H, 2).sqrt()
    H = H.expand(*leading, users, antennas).reshape(-1, users, antennas)
    W = W.expand(*leading, antennas, users).reshape(-1, antennas, users)
    limit = expand_level(power, H, 1).expand(*leading, 1).reshape(-1, 1)
    share = limit.new_ones(1) if weights is None else weights.to(limit)
    share = share.expand(*leading, users).reshape(-1, users)

    G = gram(H)
    iterate = _observe(H, W, limit)
    value = (share * iterate.rates()).sum(-1)
    final = torch.empty_like(G)
    iterations = torch.full((len(G),), max_iterations, device=H.device)
    converged = torch.zeros(len(G), dtype=torch.bool, device=H.device)
    running = torch.arange(len(G), device=H.device)
    total = limit
    for iteration in range(1, max_iterations + 1):
        iterate = _step(G, iterate, limit, share, "cholesky")
        previous, value = value, (share * iterate.rates()).sum(-1)
        done = (value - previous).abs() <= tolerance * value.abs()
        if bool(done.any()) or iteration == max_iterations:
            final[running] = iterate.X
            iterations[running[done]] = iteration
            converged[running[done]] = True
            keep = ~done
            running, value, G = running[keep], value[keep], G[keep]
            limit, share = limit[keep], share[keep]
            iterate = _Iterate(*(part[keep] for part in iterate))
            if not len(running):
                break
    W = normalise(H.mH @ final, total[:, 0], "total")
    return WmmseResult(
        W.reshape(*leading, antennas, users),
        iterations.reshape(leading),
        converged.reshape(leading),
    )


def _observe(H: Tensor, W: Tensor, power: Tensor) -> _Iterate:
    """A first iterate from any W; its X is not known (W need not lie in the span of H^H)."""
    norm = squared_magnitude(W).sum((-2, -1)).unsqueeze(-1)
    received = H @ W
    return _Iterate(torch.empty_like(received), received, norm / power)


def _step(G: Tensor, iterate: _Iterate, power: Tensor, weights: Tensor, solver: Solver) -> _Iterate:
    """One update of receivers, error weights and precoder.

    With receivers u and error weights w, W = H^H (diag(b) G + t I)^-1 diag(a w u), where a are
    the users' weights, b = a w |u|^2, t = sum(b) / P. Written with sqrt(b) on both sides of G, the
    system is Hermitian; the right-hand side becomes sqrt(a w) u / |u|.
    """
    signal, interference = split_received(iterate.received)
    unwanted = interference + iterate.noise
    total = signal + unwanted
    # u = h_k w_k / total and w = total / unwanted:
    # The clamp keeps the gradient of the root finite for users switched off.
    served = signal.clamp_min(torch.finfo(signal.dtype).tiny)
    root = (weights * served / (unwanted * total)).sqrt()  # sqrt(b)
    phase = torch.sgn(iterate.received.diagonal(dim1=-2, dim2=-1))
    side = (weights * total / unwanted).sqrt() * phase
    threshold = root.square().sum(-1, keepdim=True) / power
    eye = torch.eye(G.shape[-1], dtype=G.dtype, device=G.device)
    A = root.unsqueeze(-1) * G * root.unsqueeze(-2) + threshold.unsqueeze(-1) * eye
    X = root.unsqueeze(-1) * solve_hermitian(A, torch.diag_embed(side), solver=solver)
    received = G @ X
    norm = (X.conj() * received).real.sum((-2, -1)).unsqueeze(-1)
    return _Iterate(X, received, norm / power)


def _random_like(W: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(W.shape, dtype=W.dtype, device=W.device, generator=generator)
