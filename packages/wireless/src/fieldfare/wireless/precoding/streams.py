# SPDX-License-Identifier: Apache-2.0
"""Any precoder for users with several antennas: each stream is a row of the channel it sees."""

from typing import NamedTuple

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.mimo import effective_rows, mmse_receivers, svd_receivers
from .methods import Precoder, exact_rate

TURNS = 4
"""Of precoder and receivers, the best of which is taken."""


class Streams(NamedTuple):
    """W (..., N, K D), a user's columns side by side; receivers (..., K, M, D), unit columns."""

    W: Tensor
    receivers: Tensor


def precode_streams(
    precoder: Precoder,
    H: Tensor,
    power: Tensor,
    noise_power: Tensor,
    weights: Tensor | None,
    streams: int,
) -> Streams:
    """Precoder and receivers in turns, from the channels' singular vectors.

    Args:
        precoder: of rows.
        H: (..., K, M, N) complex, M antennas a user.
        power, noise_power: broadcastable to (...); the noise is that of every antenna.
        weights: of the users, (..., K), or None.
        streams: D of every user.

    Raises:
        InputError: more streams than a user's channel carries.
    """
    most = min(H.shape[-2:])
    if streams > most:
        raise InputError(
            f"--streams {streams}: users of {H.shape[-2]} antennas at {H.shape[-1]} antennas of the"
            f" base station take at most {most}"
        )
    share = None if weights is None else weights.repeat_interleave(streams, -1)
    receivers = svd_receivers(H, streams)
    best, value = None, torch.empty(0)
    for _ in range(TURNS):
        W = precoder(effective_rows(H, receivers), power, noise_power, share).W
        receivers = mmse_receivers(H, W, noise_power)
        rates = exact_rate(effective_rows(H, receivers), W, noise_power)
        reached = (rates if share is None else rates * share).sum(-1)
        if best is None:
            best, value = Streams(W, receivers), reached
            continue
        higher = reached > value
        value = torch.where(higher, reached, value)
        best = Streams(
            torch.where(higher[..., None, None], W, best.W),
            torch.where(higher[..., None, None, None], receivers, best.receivers),
        )
    assert best is not None
    return best


def stream_rates(H: Tensor, found: Streams, noise_power: Tensor) -> Tensor:
    """Rates of the users over their streams, (..., K), bits/s/Hz, in channels H (..., K, M, N)."""
    rates = exact_rate(effective_rows(H, found.receivers), found.W, noise_power)
    each: Tensor = rates.unflatten(-1, (H.shape[-3], -1))
    return each.sum(-1)
