# SPDX-License-Identifier: Apache-2.0
"""One tile of a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .restore import MARGIN, load_restorer, restore_bands

TILE = 64


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What enlarges a tile of 64 x 64 pixels of three bands with a variant's settings."""
    restorer = load_restorer(
        settings["model"], steps=settings["steps"], precision=settings["precision"]
    )
    side = TILE + 2 * MARGIN
    tile, start = np.zeros((1, 3, side, side), np.float32), np.zeros((1, 2), np.int64)
    return lambda: restore_bands(restorer, tile, start)
