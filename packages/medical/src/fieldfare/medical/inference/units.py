# SPDX-License-Identifier: Apache-2.0
"""A piece of a brain for a variant, ready to be timed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..data.naming import MODALITIES
from .planning import DTYPES
from .predict import load_predictor

TILE = 48
"""Side of the tiles of 3D networks, as in their training."""

SHAPES = {3: (2, len(MODALITIES), TILE, TILE, TILE), 2: (1, len(MODALITIES), 96, 96, 24)}
"""Two tiles of volumes, or as many voxels in slices, by the network's dimensions."""

VOXELS = 2 * TILE**3


def unit(settings: Mapping[str, Any]) -> Callable[[], object]:
    """What predicts `VOXELS` voxels with a variant's settings, every network of an ensemble."""
    predictor, _ = load_predictor(
        settings["model"], precision=settings["precision"], tta=settings["tta"]
    )
    pieces = [
        (one, np.zeros(SHAPES[one.ndim], np.float32)) for one in (predictor, *predictor.others)
    ]
    for one, _ in pieces:
        one.dtype = DTYPES[settings["precision"]]
    return lambda: [one(piece) for one, piece in pieces]
