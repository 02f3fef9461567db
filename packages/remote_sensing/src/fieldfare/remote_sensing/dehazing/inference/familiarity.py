# SPDX-License-Identifier: Apache-2.0
"""Before the first tile: is the raster like what the model knows, and how clear will it become?

As in super-resolution, up to 49 windows are looked at by features of the input alone.
"""

from pathlib import Path

import numpy as np

from fieldfare.common.trust.features import Array
from fieldfare.common.trust.knowledge import Judgement, read_knowledge

from ...rasters.looks import features_of, windows_features
from ...rasters.reading import Scene, ValueRange

LAYERS = ("input",)
"""Of the model's `Knowledge`: what `haze_features` gives."""

SIGNS = ("haze", "contrast", "noise")
"""Columns of the features on which the expectation rests, too; see `signs_of`."""

QUALITY = "PSNR in dB"

CHANNELS = 3
"""The first bands of a raster that are looked at, the last one several times where it has fewer."""


def haze_features(tile: np.ndarray) -> np.ndarray:
    """What is looked at in a window.

    Args:
        tile: (3, h, w) as the model sees it, 0 to 1.

    Returns:
        (17,) float64: `rasters.looks.features_of`; the mean of the darkest band at each
        pixel, which haze lifts (He et al. 2009); how far each band's mean is from the grey mean.
    """
    means = tile.mean(axis=(1, 2), dtype=np.float64)
    darkest = tile.min(axis=0).mean(dtype=np.float64)
    return np.array([*features_of(tile), darkest, *(means - means.mean())])


def signs_of(features: Array) -> Array:
    """Of (N, F) features the (N, 3) SIGNS: darkest band, and logarithms of contrast and noise."""
    return features[:, [13, 8, 10]]


def judgement_of(scene: Scene, values: ValueRange, model: Path | None) -> Judgement | None:
    """Look at the whole raster, whatever part is wanted.

    Args:
        model: a model file; None is the baseline, which knows nothing.

    Returns:
        None where the model does not say what it knows, or no window holds data.
    """
    knowledge = None if model is None else read_knowledge(model)
    if knowledge is None:
        return None
    features = windows_features(scene, values, CHANNELS, of=haze_features)
    if not len(features):
        return None
    return knowledge.judge(*knowledge.rows([features], signs_of(features)))
