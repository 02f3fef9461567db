# SPDX-License-Identifier: Apache-2.0
"""The network, and user selection where serving all users costs rate.

The network was trained for cells that serve all users. Greedy selection is tried where there are
more users than antennas, where RZF gains without one user and comes near what the network
reaches, where that is far below the rate without interference, and where one user alone would have
nearly as much. If RZF for the selected users is the better, it is taken; with more users than
antennas the network runs on them, too.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..signals.rates import row_power, squared_magnitude
from ..signals.selection import greedy_rzf, greedy_users, precode_selected
from ..signals.solve import Solver
from .guard import best_of
from .precoder import IcgnnPrecoder, PrecoderResult, precode_cells
from .refine import refine
from .structure import Shape

ONE_USER = 1.05
"""Times what the best user alone would have: with a sum rate below that, selection is tried."""

FREE = 0.65
"""Of the sum rate without interference at equal powers: with less, selection is tried."""

ONE_LESS = 0.98
"""Of the sum rate in hand: where RZF without one user promises more, selection is tried."""


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
    """

    def everyone(
        H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None
    ) -> tuple[PrecoderResult, Shape]:
        levels = power, noise_power
        found, rzf = precode_cells(network, H, levels, weights, guard=guard, solver=solver)
        if not refinement:
            return found, rzf
        exact = H.to(torch.complex128), found.W.to(torch.complex128)
        W = refine(*exact, *levels, steps=refinement, weights=weights, solver=solver)
        best = best_of(H, [found.W, W.to(H.dtype)], noise_power, weights)
        return PrecoderResult(best.W, best.rate, found.guarded & (best.number == 0)), rzf

    def learned(
        H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        found, _ = everyone(H, power, noise_power, weights)
        return found.W, found.guarded

    found, rzf = everyone(H, power, noise_power, weights)
    W, flags = found.W, found.guarded
    overloaded = H.shape[1] > H.shape[2]
    rows = torch.arange(len(H), device=H.device)
    if not overloaded:
        rows = rows[_doubtful(H, found.rate, rzf.Y, power / noise_power, weights)]
    if not len(rows):
        return Chosen(W, flags)
    few = (H[rows], power[rows], noise_power[rows])
    share = None if weights is None else weights[rows]
    served = greedy_users(*few, share)
    candidates, guarded = [W[rows]], [flags[rows]]
    if guard:
        candidates.append(greedy_rzf(*few, share, served=served))
        guarded.append(torch.ones_like(flags[rows]))
    if overloaded or not guard:
        selected, flag = precode_selected(learned, served, *few, share)
        candidates.append(selected)
        guarded.append(flag)
    best = best_of(few[0], candidates, few[2], share)
    W[rows] = best.W
    flags[rows] = torch.stack(guarded).gather(0, best.number.unsqueeze(0))[0]
    return Chosen(W, flags)


def _doubtful(H: Tensor, rates: Tensor, Y: Tensor, power: Tensor, weights: Tensor | None) -> Tensor:
    """Where selection is worth a try, (B,) bool.

    With Y = (A / K + I)^-1 of RZF, user k has the rate -log2 Y_kk in the dual uplink with equal
    powers, and without user j Y_kk is Y_kk - |Y_kj|^2 / Y_jj.

    Args:
        H: (B, K, N); rates: (B, K) of the precoder in hand; Y: (B, K, K).
        power: (B,), over the noise.
        weights: (B, K) or None.
    """
    share = torch.ones_like(rates) if weights is None else weights
    reached = (share * rates).sum(-1)
    snr = row_power(H) * power.unsqueeze(-1)
    alone = (share * torch.log2(1 + snr)).amax(-1)
    kept = Y.diagonal(dim1=-2, dim2=-1).real.to(rates.dtype)
    rest = kept.unsqueeze(-1) - squared_magnitude(Y).to(kept) / kept.unsqueeze(-2)
    rest.diagonal(dim1=-2, dim2=-1).fill_(1)  # user j itself
    fewer = -(share.unsqueeze(-1) * rest.clamp_min(1e-30).log2()).sum(-2).amin(-1)
    free = (share * torch.log2(1 + snr / rates.shape[-1])).sum(-1)
    small = (reached < ONE_USER * alone) | (reached < FREE * free)
    everyone = -(share * kept.clamp_min(1e-30).log2()).sum(-1)
    return small | ((fewer > everyone) & (fewer > ONE_LESS * reached))
