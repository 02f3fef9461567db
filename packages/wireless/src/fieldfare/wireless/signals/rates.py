# SPDX-License-Identifier: Apache-2.0
"""What a linear precoder achieves: SINR and rate of every user of y_k = H[k] W s + n_k."""

import math

import torch
from torch import Tensor

Level = float | Tensor
"""A positive power in the channel's unit: one number, or a tensor over the leading dimensions."""


def expand_level(level: Level, like: Tensor, dims: int) -> Tensor:
    """The level in the real type of `like`, with `dims` axes of length 1 appended to broadcast."""
    real = like.real.dtype if like.is_complex() else like.dtype
    level = torch.as_tensor(level, dtype=real, device=like.device)
    return level.reshape(level.shape + (1,) * dims)


def squared_magnitude(values: Tensor) -> Tensor:
    """|values|^2, real; unlike `abs() ** 2`, without a square root and smooth at zero."""
    return values.real.square() + values.imag.square()


def row_power(H: Tensor) -> Tensor:
    """Squared length of every row, (...) of (..., N) complex; 6 times as fast as by parts."""
    parts = torch.view_as_real(H.resolve_conj()).flatten(-2)
    found: Tensor = torch.linalg.vector_norm(parts, dim=-1).square()
    return found


def split_received(received: Tensor) -> tuple[Tensor, Tensor]:
    """Wanted and interfering power of every user.

    Args:
        received: (..., K, K) complex, H W: row k holds what user k receives of every symbol.

    Returns:
        Two of (..., K). The interference is summed, not found as total less signal: that would
        lose a zero-forced residue in rounding.
    """
    power = squared_magnitude(received)
    signal = power.diagonal(dim1=-2, dim2=-1)
    return signal, (power - torch.diag_embed(signal)).sum(-1)


def sinr(H: Tensor, W: Tensor, noise_power: Level) -> Tensor:
    """Signal to interference and noise ratio of every user.

    Args:
        H: (..., K, N) complex, row k the channel of user k.
        W: (..., N, K) complex, column k the precoder of user k, its power included.
        noise_power: positive; a number or broadcastable to the leading dimensions.

    Returns:
        (..., K), linear: |h_k w_k|^2 / (sum_{i != k} |h_k w_i|^2 + noise_power).
    """
    signal, interference = split_received(H @ W)
    return signal / (interference + expand_level(noise_power, H, 1))


def rate(H: Tensor, W: Tensor, noise_power: Level) -> Tensor:
    """Rate of every user in bits/s/Hz, (..., K); arguments as for `sinr`."""
    return torch.log1p(sinr(H, W, noise_power)) / math.log(2)


def sum_rate(H: Tensor, W: Tensor, noise_power: Level, weights: Tensor | None = None) -> Tensor:
    """Sum of the users' rates, times their `weights` (broadcastable to (..., K)) where given.

    Returns:
        (...), bits/s/Hz.
    """
    rates = rate(H, W, noise_power)
    return (rates if weights is None else weights * rates).sum(-1)
