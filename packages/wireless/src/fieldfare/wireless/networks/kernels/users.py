# SPDX-License-Identifier: Apache-2.0
"""`networks.users.precode_users` on the compiled loops."""

import torch
from torch import Tensor

from ...signals.rates import row_power
from ..guard import best_of
from ..users import Chosen
from .channels import Channels, Compiled

ROUNDED = 1e9
"""Over the noise, linear: from there on rounding W to single precision costs rate."""


def precode_compiled(
    network: Compiled,
    H: Tensor,
    power: Tensor,
    noise_power: Tensor,
    weights: Tensor | None = None,
    *,
    guard: bool = True,
    refinement: int = 0,
    select: bool = True,
) -> Chosen:
    """As `networks.users.precode_users`; users without channel or weight are not served.

    Args:
        network: see `Compiled`.
        H: (B, K, N) complex, on the CPU.
        power, noise_power: (B,). weights: (B, K) or None.
        guard: take RZF, of all users or of the selected ones, where it is the better.
        refinement: WMMSE steps from the network's point.
        select: also start from the users of greedy selection.
    """
    channels = Channels(H, power, noise_power, weights)
    found = channels.network(network, guard=guard, select=select, steps=refinement)
    flags = found.value == found.safe
    if guard and H.dtype == torch.complex64 and channels.most_snr() > ROUNDED:
        snr = row_power(H).amax(-1) * power / noise_power
        rows = (snr > ROUNDED).nonzero()[:, 0]
        if len(rows):
            safe = channels.served_by(rows, torch.from_numpy(channels.weights[rows]) > 0).rzf()
            share = torch.from_numpy(channels.weights)[rows]
            best = best_of(H[rows], [safe, found.W[rows]], noise_power[rows], share)
            found.W[rows] = best.W
            flags[rows] = flags[rows] | (best.number == 0)
    return Chosen(found.W, flags)
