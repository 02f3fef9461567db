# SPDX-License-Identifier: Apache-2.0
"""The optimal linear structure in K dimensions: from shares of power to what users receive.

With A = H H^H P / s2, uplink shares L of sum 1 and S = L^1/2 A L^1/2 + I the directions are
W ~ H^H L^1/2 S^-1. As A L^1/2 S^-1 = L^-1/2 (I - S^-1), what users receive of columns with the side
powers q follows from S^-1 alone, without the product that WMMSE is usually written with. Equal
shares are regularised zero forcing.

Source: Björnson, Bengtsson, Ottersten 2014 (doi 10.1109/MSP.2014.2312183).
"""

import math
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from ..signals.linear import gram
from ..signals.rates import Level, expand_level, squared_magnitude
from ..signals.solve import Solver, solve_hermitian

LEAST = -40.0
"""Of the logarithms of shares and side powers: a user this far below is switched off."""

CG_TOLERANCE = 1e-6
"""Of conjugate gradients: what is received follows from the inverse, which has to be one."""

TINY = 1e-300


class Cell(NamedTuple):
    """Channels (B, K, N) in units of the noise: A = H H^H P / s2 (B, K, K), weights (B, K).

    Users of weight 0 are not served: they get next to nothing.
    """

    A: Tensor
    weights: Tensor


class Solving(TypedDict, total=False):
    """How the linear systems are solved: keywords of `look`."""

    solver: Solver
    tolerance: float
    max_iterations: int | None


class View(NamedTuple):
    """A cell at some uplink shares.

    inverse: S^-1 (B, K, K); power: |S^-1_kj|^2 without its diagonal; kept: S^-1_kk (B, K); wanted:
    (1 - S^-1_kk)^2 / L_k; length: the power of a column of q = 1; share: L.
    """

    inverse: Tensor
    power: Tensor
    kept: Tensor
    wanted: Tensor
    length: Tensor
    share: Tensor


class Response(NamedTuple):
    """Wanted and interfering power of every user over the noise (B, K), at the whole power."""

    signal: Tensor
    leak: Tensor

    def rates(self) -> Tensor:
        """(B, K), bits/s/Hz."""
        return torch.log1p(self.signal / (1 + self.leak)) / math.log(2)


def observe(H: Tensor, power: Level, noise_power: Level, weights: Tensor | None = None) -> Cell:
    """Gram matrix of channels H (B, K, N); weights get mean 1."""
    A = gram(H) * (expand_level(power, H, 2) / expand_level(noise_power, H, 2))
    share = A.real.new_ones(A.shape[:-1])
    if weights is not None:
        share = share * weights.to(share)
        share = share / share.mean(-1, keepdim=True)
    return Cell(A, share)


def look(
    A: Tensor,
    share: Tensor,
    *,
    solver: Solver = "cholesky",
    tolerance: float = CG_TOLERANCE,
    max_iterations: int | None = None,
) -> View:
    """The cell at uplink shares (B, K) of sum 1.

    Args:
        A: (B, K, K) as in `Cell`.
        solver, tolerance, max_iterations: as for `solve_hermitian`.
    """
    side = share.sqrt().unsqueeze(-1)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    scaled = side * A * side.mT
    inverse = solve_hermitian(
        scaled + eye,
        eye.expand_as(A),
        solver=solver,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    lost = (inverse * scaled.mT).sum(-1).real
    return view(inverse, squared_magnitude(inverse), lost, share)


def view(inverse: Tensor, power: Tensor, lost: Tensor, share: Tensor) -> View:
    """What follows of an inverse.

    Args:
        inverse: S^-1, (B, K, K) or its real embedding.
        power: (B, K, K), |S^-1_kj|^2.
        lost: (B, K), 1 - S^-1_kk, as a sum: the difference loses users of little power.
        share: (B, K).
    """
    users = share.shape[-1]
    kept = torch.diagonal(inverse[:, :users, :users], dim1=-2, dim2=-1)
    kept = kept.real if kept.is_complex() else kept
    power = power * (1 - torch.eye(users, dtype=power.dtype, device=power.device))
    length = (kept * lost - power.sum(-2)).clamp_min(TINY)
    return View(inverse, power, kept, lost.square() / share, length, share)


def respond(seen: View, q: Tensor) -> Response:
    """To columns of side powers q (B, K), scaled together to the whole power."""
    spent = (q * seen.length).sum(-1, keepdim=True)
    leak = (seen.power * q.unsqueeze(-2)).sum(-1) / seen.share / spent
    return Response(seen.wanted * q / spent, leak)


def directions(seen: View, q: Tensor) -> Tensor:
    """X of W = H^H X (B, K, K), of power sum_j q_j length_j once A is the Gram matrix."""
    return seen.share.sqrt().unsqueeze(-1) * seen.inverse * q.sqrt().unsqueeze(-2)


def equal_shares(weights: Tensor) -> Tensor:
    """One over their number for users of some weight, next to nothing for the others, (B, K)."""
    served = (weights > 0).to(weights.dtype)
    return (served / served.sum(-1, keepdim=True).clamp_min(1)).clamp_min(math.exp(LEAST))


def log_share(logits: Tensor) -> Tensor:
    """Logarithms of numbers over their sum, at least `LEAST`, (B, K)."""
    return (logits - logits.logsumexp(-1, keepdim=True)).clamp_min(LEAST)
