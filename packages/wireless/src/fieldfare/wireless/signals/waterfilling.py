# SPDX-License-Identifier: Apache-2.0
"""Water-filling: the powers that maximise the sum rate of channels without interference."""

import torch
from torch import Tensor

from .linear import unit_columns, zf
from .rates import Level, expand_level, squared_magnitude


def waterfilling(gains: Tensor, power: Level = 1.0) -> Tensor:
    """Powers p >= 0 with sum `power` that maximise sum_k log2(1 + gains_k p_k).

    Args:
        gains: (..., K), channel gain over noise, linear, not negative.
        power: total power, broadcastable to (...).

    Returns:
        (..., K): p_k = max(0, level - 1 / gains_k), the level exact (by sorting, no bisection).

    Source: Cover and Thomas, Elements of Information Theory, 2nd ed., section 9.4.
    """
    floors = 1 / gains.clamp_min(torch.finfo(gains.dtype).tiny)
    lowest_first = floors.sort(-1).values
    count = torch.arange(1, gains.shape[-1] + 1, device=gains.device)
    total = expand_level(power, gains, 1)
    levels = (total + lowest_first.cumsum(-1)) / count  # the level if the first `count` are filled
    filled = (levels > lowest_first).sum(-1, keepdim=True).clamp_min(1)
    return (levels.gather(-1, filled - 1) - floors).clamp_min(0)


def zf_waterfilling(H: Tensor, power: Level = 1.0, noise_power: Level = 1.0) -> Tensor:
    """Zero forcing with the power of its columns by water-filling, (..., N, K).

    Raises:
        InputError: as `zf`.
    """
    directions = unit_columns(zf(H))
    received = (H @ directions).diagonal(dim1=-2, dim2=-1)
    gains = squared_magnitude(received) / expand_level(noise_power, H, 1)
    return directions * waterfilling(gains, power).sqrt().unsqueeze(-2)
