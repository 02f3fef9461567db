# SPDX-License-Identifier: Apache-2.0
"""Imperfect channel knowledge: precode for the estimate, rate with the truth.

estimate = imperfect_csi(H, 0.1, generator)
achieved = rate(H, rzf(estimate, power, noise_power), noise_power)
"""

import torch
from torch import Tensor

from .rates import Level, expand_level, squared_magnitude


def imperfect_csi(H: Tensor, error: Level, generator: torch.Generator | None = None) -> Tensor:
    """An estimate with the given share of error: sqrt(1 - error) H + sqrt(error) V.

    V has i.i.d. entries CN(0, g_k), g_k the mean |h|^2 of user k over its antennas in this
    channel, so that a user's error scales with its path loss. The estimate has the power of the
    channel. The same form describes outdated knowledge, with error = 1 - J0(2 pi f_D delay)^2.

    Args:
        H: (..., K, N) complex.
        error: 0 (perfect) to 1 (unrelated), a number or broadcastable to (...).
        generator: draws V.

    Returns:
        (..., K, N).

    Raises:
        ValueError: an error outside 0 to 1.
    """
    share = expand_level(error, H, 2)
    if bool(((share < 0) | (share > 1)).any()):
        raise ValueError(f"error {error}: must lie in 0 to 1")
    gain = squared_magnitude(H).mean(-1, keepdim=True)
    noise = torch.randn(H.shape, dtype=H.dtype, device=H.device, generator=generator)
    return (1 - share).sqrt() * H + (share * gain).sqrt() * noise
