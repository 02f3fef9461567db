# SPDX-License-Identifier: Apache-2.0
"""The guard: of several finished precoders, the one with the highest rate in double precision."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..signals.rates import Level, expand_level, split_received


class Best(NamedTuple):
    """W (..., N, K), its rates (..., K) in bits/s/Hz, float64, and its number (...), int64."""

    W: Tensor
    rate: Tensor
    number: Tensor


def best_of(
    H: Tensor,
    candidates: Sequence[Tensor],
    noise_power: Level,
    weights: Tensor | None = None,
    *,
    margin: float = 0.0,
) -> Best:
    """Of every channel the precoder with the highest weighted sum rate.

    Args:
        H: (..., K, N) complex, the channels that the precoders were made for.
        candidates: (..., N, K) each, as they will be used: limits kept, numbers rounded. Of equal
            ones the first wins; one whose rates are not finite loses.
        noise_power: of every user.
        weights: broadcastable to (..., K).
        margin: what a later one has to gain, relative.
    """
    W = torch.cat(list(candidates), -1)  # one product is the faster
    users = H.shape[-2]
    exact = H.to(torch.complex128)
    noise = expand_level(noise_power, exact, 1)
    rates = [_rates(part, noise) for part in (exact @ W.to(exact.dtype)).split(users, -1)]
    first, *others = W.split(users, -1)
    best = Best(first, rates[0], torch.zeros_like(rates[0][..., 0], dtype=torch.int64))
    value = _value(rates[0], weights)
    for number, (other, found) in enumerate(zip(others, rates[1:], strict=True), 1):
        reached = _value(found, weights)
        higher = reached > value * (1 + margin)
        value = torch.where(higher, reached, value)
        best = Best(
            torch.where(higher[..., None, None], other, best.W),
            torch.where(higher[..., None], found, best.rate),
            torch.where(higher, number, best.number),
        )
    return best


def _rates(received: Tensor, noise: Tensor) -> Tensor:
    signal, interference = split_received(received)
    return torch.log1p(signal / (interference + noise)) / math.log(2)


def _value(rates: Tensor, weights: Tensor | None) -> Tensor:
    value = (rates if weights is None else weights * rates).sum(-1)
    return torch.where(value.isfinite(), value, -torch.inf)
