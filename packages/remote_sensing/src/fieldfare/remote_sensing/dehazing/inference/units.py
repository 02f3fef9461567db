# SPDX-License-Identifier: Apache-2.0
"""One tile of a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .dehazers import load_dehazer

TILE = 256


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What dehazes a tile of 256 x 256 pixels of three bands with a variant's settings."""
    dehazer = load_dehazer(settings["model"], precision=settings["precision"])
    side = TILE + 2 * dehazer.margin
    tile = np.full((1, 3, side, side), 0.5, np.float32)
    return lambda: dehazer(tile)
