# SPDX-License-Identifier: Apache-2.0
"""One tile of a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .predict import load_predictor

TILE = 512


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What predicts a tile of 512 x 512 pixels with a variant's settings."""
    predictor = load_predictor(
        settings["model"], depth=settings["depth"], precision=settings["precision"]
    )
    tile = np.zeros((1, predictor.config.in_channels, TILE, TILE), np.float32)
    start = np.zeros((1, 2), np.int64)
    return lambda: predictor(tile, start)
