# SPDX-License-Identifier: Apache-2.0
"""Squares spread over a scene, as a network sees them."""

from collections.abc import Iterator

import numpy as np

from ..rasters.reading import Scene, ValueRange, fill_missing
from ..rasters.samples import windows_over

HELD = 0.9
"""Share of a square that must hold data."""


def squares(scene: Scene, values: ValueRange, side: int, across: int) -> Iterator[np.ndarray]:
    """Those that hold data of `windows_over`: (bands, side, side) float32 in [0, 1], missing
    pixels filled."""
    span = np.float32(values.high - values.low)
    for found, valid in windows_over(scene, side, across):
        if valid.mean() >= HELD:
            scaled = (found.astype(np.float32) - np.float32(values.low)) / span
            yield fill_missing(np.clip(scaled, 0, 1), valid)
