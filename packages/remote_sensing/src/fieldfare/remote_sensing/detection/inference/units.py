# SPDX-License-Identifier: Apache-2.0
"""One tile of a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .predict import load_predictor

TILE = 576


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What searches a tile of 576 x 576 pixels with a variant's settings."""
    predictor = load_predictor(settings["model"], precision=settings["precision"])
    tile = np.zeros((1, predictor.config.in_channels, TILE, TILE), np.float32)
    return lambda: predictor(tile, 0.5)
