# SPDX-License-Identifier: Apache-2.0
"""The optimal linear structure in K dimensions: from shares of power to precoders and rates.

With A = H H^H P / s2 and L = diag(lambda), W ~ H^H (L A + I)^-1, every column scaled to its share
of the power. Equal shares are regularised zero forcing.

Source: Björnson, Bengtsson, Ottersten 2014 (doi 10.1109/MSP.2014.2312183).
"""

import math
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from ..signals.linear import gram
from ..signals.rates import Level, expand_level, split_received, squared_magnitude
from ..signals.solve import CG_TOLERANCE, Solver, solve_hermitian
from .graph import UserGraph, static_features

FLOOR = 1e-6
"""Least share of virtual uplink power: at 0 a user's direction would be undefined."""


class Cell(NamedTuple):
    """Channels (B, K, N) as the users see them, in units of the noise.

    A: (B, K, K) complex, H H^H P / s2; weights: (B, K); graph: static features.
    """

    A: Tensor
    weights: Tensor
    graph: UserGraph


class Solving(TypedDict, total=False):
    """How the linear systems are solved: keywords of `structure`."""

    solver: Solver
    tolerance: float
    max_iterations: int | None


class Shape(NamedTuple):
    """Directions and powers in K dimensions: W of columns H^H Y, scaled to the shares `downlink`.

    Y: (B, K, K); downlink: (B, K), p of sum 1; uplink: (B, K), lambda of sum 1, which gave Y.
    """

    Y: Tensor
    downlink: Tensor
    uplink: Tensor


def observe(H: Tensor, power: Level, noise_power: Level, weights: Tensor | None = None) -> Cell:
    """Gram matrix and static features of channels H (B, K, N); weights get mean 1."""
    A = gram(H) * (expand_level(power, H, 2) / expand_level(noise_power, H, 2))
    share = A.real.new_ones(A.shape[:-1])
    if weights is not None:
        share = share * weights.to(share)
        share = share / share.mean(-1, keepdim=True)
    graph = static_features(A.diagonal(dim1=-2, dim2=-1).real, squared_magnitude(A), share)
    return Cell(A, share, graph)


def equal_shares(A: Tensor) -> Tensor:
    """1 / K for every user, (B, K)."""
    return torch.full_like(A.real[..., 0], 1 / A.shape[-1])


def structure(
    A: Tensor,
    uplink: Tensor,
    *,
    solver: Solver = "cholesky",
    tolerance: float = CG_TOLERANCE,
    max_iterations: int | None = None,
) -> Tensor:
    """Y = (L A + I)^-1 up to the length of its columns, (B, K, K): W ~ H^H Y.

    Args:
        A: (B, K, K) as in `Cell`.
        uplink: (B, K), lambda with sum 1.
        solver, tolerance, max_iterations: as for `solve_hermitian`. Solved in the Hermitian form
            L^1/2 (L^1/2 A L^1/2 + I)^-1 L^-1/2.
    """
    root = uplink.clamp_min(FLOOR).sqrt().unsqueeze(-1)
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    system = root * A * root.mT + eye
    inverse = solve_hermitian(
        system,
        eye.expand_as(A),
        solver=solver,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return root * inverse / root.mT


def received_amplitudes(
    A: Tensor, Y: Tensor, downlink: Tensor, cross: Tensor | None = None
) -> Tensor:
    """H W over the root of the noise, (B, K, K), for W of columns H^H Y scaled to `downlink`.

    Args:
        A, Y: as in `structure`.
        downlink: (B, K), p with sum 1.
        cross: (B, K, K), H_true H^H P / s2 where the channel differs from the estimate H.
    """
    image = A @ Y
    norm = (Y.conj() * image).real.sum(-2, keepdim=True)
    scale = (downlink.unsqueeze(-2) / norm.clamp_min(1e-20)).sqrt()
    return (image if cross is None else cross @ Y) * scale


def rates(received: Tensor) -> Tensor:
    """Rates (..., K) in bits/s/Hz of what `received_amplitudes` gives."""
    signal, interference = split_received(received)
    return torch.log1p(signal / (interference + 1)) / math.log(2)
