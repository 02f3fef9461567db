# SPDX-License-Identifier: Apache-2.0
"""Sum capacity of the downlink (dirty-paper coding): what no precoder can exceed, with a proof."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .linear import gram
from .rates import Level, expand_level


class CapacityResult(NamedTuple):
    """All float64, over the leading dimensions of H.

    `capacity` (bits/s/Hz) is reached by the dual powers q (..., K); `upper_bound` holds for any q,
    converged or not: the true capacity lies between the two.
    """

    capacity: Tensor
    upper_bound: Tensor
    dual_power: Tensor
    iterations: Tensor


def sum_capacity(
    H: Tensor,
    power: Level = 1.0,
    noise_power: Level = 1.0,
    *,
    tolerance: float = 1e-6,
    max_iterations: int = 20_000,
) -> CapacityResult:
    """Sum capacity of y_k = H[k] x + n_k under E||x||^2 <= power.

    Equal to the capacity of the dual uplink, max over q >= 0, sum q = power, of
    f(q) = log2 det(I + sum_k q_k h_k^H h_k / noise). Updates q_k <- power q_k g_k / sum_i q_i g_i
    with the gradient g; as f is concave, f(q*) <= f(q) + (max_k g_k power - sum_k q_k g_k) / ln 2.

    Args:
        H: (..., K, N) complex; computed in double precision.
        power: total transmit power, a number or broadcastable to (...).
        noise_power: of every user, likewise.
        tolerance: a channel stops once the bound is within this of the capacity, relatively.
        max_iterations: 1e-6 takes 2 to 31 iterations for N >= 2 K and up to about 1200 for K = N.

    Source: duality: Vishwanath, Jindal, Goldsmith 2003 (doi 10.1109/TIT.2003.817421).
    """
    leading, users = H.shape[:-2], H.shape[-2]
    with torch.no_grad():
        H = H.to(torch.complex128)
        limit = expand_level(power, H, 1).expand(*leading, 1).reshape(-1, 1)
        noise = expand_level(noise_power, H, 2).expand(*leading, 1, 1).reshape(-1, 1, 1)
        G = gram(H).reshape(-1, users, users) / noise
        q = (limit / users).expand(-1, users)
        value, bound = (limit.new_empty(len(G)) for _ in range(2))
        final = torch.empty_like(q)
        iterations = torch.full((len(G),), max_iterations, device=H.device)
        running = torch.arange(len(G), device=H.device)
        for iteration in range(max_iterations + 1):
            f, gradient = _dual_rate(G, q)
            gap = (gradient.amax(-1) * limit[:, 0] - (q * gradient).sum(-1)) / math.log(2)
            done = gap <= tolerance * f
            if bool(done.any()) or iteration == max_iterations:
                value[running], bound[running], final[running] = f, f + gap.clamp_min(0), q
                iterations[running[done]] = iteration
                keep = ~done
                running, G, q = running[keep], G[keep], q[keep]
                limit, gradient = limit[keep], gradient[keep]
                if not len(running):
                    break
            q = q * gradient
            q = limit * q / q.sum(-1, keepdim=True)
    return CapacityResult(
        value.reshape(leading),
        bound.reshape(leading),
        final.reshape(*leading, users),
        iterations.reshape(leading),
    )


def _dual_rate(G: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """f(q) in bits/s/Hz, (B,), and its gradient in nats, (B, K), for G = H H^H / noise.

    g_k = h_k (I + sum_i q_i h_i^H h_i)^-1 h_k^H = [G (I + Q G)^-1]_kk needs K dimensions only and,
    unlike forms divided by q_k, stays exact where q_k vanishes.
    """
    root = q.sqrt()
    eye = torch.eye(q.shape[-1], dtype=G.dtype, device=G.device)
    factor = torch.linalg.cholesky(root.unsqueeze(-1) * G * root.unsqueeze(-2) + eye)
    value = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log2().sum(-1)
    product = torch.linalg.solve(eye + G * q.unsqueeze(-2), G)
    return value, product.diagonal(dim1=-2, dim2=-1).real
