# SPDX-License-Identifier: Apache-2.0
"""Bands as a network of a fixed number of channels takes them, and what it gives."""

import numpy as np

from fieldfare.common.errors import RunError


def band_groups(count: int, channels: int) -> list[list[int]]:
    """Bands (0-based) in groups of a model's channels; the last group repeats its last band.

    Four bands for a model of three give [[0, 1, 2], [3, 3, 3]].
    """
    groups = [
        list(range(first, min(first + channels, count))) for first in range(0, count, channels)
    ]
    groups[-1] += [count - 1] * (channels - len(groups[-1]))
    return groups


def finite(values: np.ndarray) -> np.ndarray:
    """The values; raises RunError where a network has given NaN or infinity for finite input."""
    if not np.isfinite(values).all():
        raise RunError("the network gives values that are no numbers; its weights are damaged")
    return values
