# SPDX-License-Identifier: Apache-2.0
"""The network, from everyone and from the users of greedy selection: the better of the two.

WMMSE and the network end at a local optimum. From RZF for all users it is a good one where all can
be served; from RZF for the users of greedy selection it is never below that, and better by up to a
third with more users than antennas, users at one place or at high SNR. Both are found, and what has
the higher weighted sum rate is taken.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..signals.selection import greedy_users, precode_selected
from ..signals.solve import Solver
from .guard import best_of
from .precoder import IcgnnPrecoder, precode_cells
from .refine import refine


class Chosen(NamedTuple):
    """W (B, N, K), and where it is RZF (B,)."""

    W: Tensor
    guarded: Tensor


@torch.no_grad()
def precode_users(
    network: IcgnnPrecoder,
    H: Tensor,
    power: Tensor,
    noise_power: Tensor,
    weights: Tensor | None = None,
    *,
    guard: bool = True,
    solver: Solver = "cholesky",
    refinement: int = 0,
    select: bool = True,
) -> Chosen:
    """Precoders of channels of one size, some users served and some perhaps not.

    Args:
        network: see `IcgnnPrecoder`.
        H: (B, K, N) complex, rows not zero.
        power, noise_power: (B,).
        weights: (B, K), positive, or None.
        guard: take RZF, of all users or of the selected ones, where it is the better.
        solver: as for `solve_hermitian`.
        refinement: accelerated WMMSE steps from the network's point.
        select: also start from the users of greedy selection.
    """

    def learned(
        H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        levels = power, noise_power
        found, _ = precode_cells(network, H, levels, weights, guard=guard, solver=solver)
        if not refinement:
            return found.W, found.guarded
        exact = H.to(torch.complex128), found.W.to(torch.complex128)
        W = refine(*exact, *levels, steps=refinement, weights=weights, solver=solver)
        best = best_of(H, [found.W, W.to(H.dtype)], noise_power, weights)
        return best.W, found.guarded & (best.number == 0)

    W, flags = learned(H, power, noise_power, weights)
    if not select:
        return Chosen(W, flags)
    served = greedy_users(H, power, noise_power, weights)
    rows = (~served.all(-1)).nonzero()[:, 0]
    if len(rows):
        few = H[rows], power[rows], noise_power[rows]
        share = None if weights is None else weights[rows]
        selected, flag = precode_selected(learned, served[rows], *few, share)
        best = best_of(few[0], [W[rows], selected], few[2], share)
        W[rows] = best.W
        flags[rows] = torch.where(best.number == 1, flag, flags[rows])
    return Chosen(W, flags)
