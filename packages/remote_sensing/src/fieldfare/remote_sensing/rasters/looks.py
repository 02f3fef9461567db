# SPDX-License-Identifier: Apache-2.0
"""What a raster looks like: a few numbers of windows spread evenly over it."""

from collections.abc import Callable

import numpy as np

from .reading import Scene, ValueRange, fill_missing
from .samples import windows_over

BANDS = (0.03, 0.08, 0.16, 0.24, 0.32, 0.40, 0.50)
"""Edges of rings in the spectrum, cycles a pixel."""

LEAST_SIDE = 16
"""Of a tile, in pixels."""

_TINY = 1e-9

SIDE, ACROSS = 64, 7
"""Of a window in pixels, and how many lie along each axis at most."""

LEAST_VALID = 0.95
"""Share of a window that must hold data."""


def features_of(tile: np.ndarray) -> np.ndarray:
    """What is looked at in a tile.

    Args:
        tile: (channels, h, w) as the model sees it, 0 to 1; sides of `LEAST_SIDE` or more.

    Returns:
        (13,) float64: logarithms of the power of the grey image in each of `BANDS`; of colour in
        the lowest and highest of them; of contrast; mean; logarithm of the noise (median of the
        diagonal Laplacian, after Immerkaer 1996); how peaked gradients are; how much they repeat
        every 8 pixels, as at the blocks of JPEG.
    """
    image = tile.astype(np.float64)
    grey = image.mean(axis=0)
    bands = _band_powers(grey[None])
    colour = _band_powers(image - grey)
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    diagonal = np.diff(np.diff(grey, axis=0), axis=1)
    slopes = np.concatenate([across.ravel(), down.ravel()])
    peaked = slopes.mean() / np.sqrt(np.square(slopes).mean() + _TINY)
    return np.array(
        [
            *np.log10(bands + _TINY),
            *np.log10(colour[[0, -1]] + _TINY),
            np.log10(grey.std() + 1e-4),
            grey.mean(),
            np.log10(np.median(np.abs(diagonal)) + 1e-4),
            peaked,
            _blocks(across) + _blocks(down.T),
        ]
    )


def _band_powers(planes: np.ndarray) -> np.ndarray:
    """Mean power of (channels, h, w) in each ring."""
    sides = planes.shape[1:]
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in sides))
    centred = (planes - planes.mean(axis=(1, 2), keepdims=True)) * window
    power = np.square(np.abs(np.fft.fft2(centred))).mean(axis=0) / np.square(window).sum()
    away = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in sides), indexing="ij"))
    rings = np.digitize(away, BANDS)
    return np.array([power[rings == ring].mean() for ring in range(1, len(BANDS))])


def _blocks(steps: np.ndarray) -> float:
    """Logarithm of the largest over the median mean of steps in each of 8 places."""
    means = np.array([steps[:, place::8].mean() for place in range(8)])
    return float(np.log((means.max() + 1e-4) / (np.median(means) + 1e-4)))


def windows_features(
    scene: Scene,
    values: ValueRange,
    channels: int,
    of: Callable[[np.ndarray], np.ndarray] = features_of,
) -> np.ndarray:
    """Features (N, F) of the windows of a raster that hold data, in its first bands.

    Args:
        of: makes them of a window as `features_of` does.
    """
    if min(SIDE, scene.dataset.height, scene.dataset.width) < LEAST_SIDE:
        return np.empty((0, 0))
    found = []
    for read, valid in windows_over(scene, SIDE, ACROSS):
        chosen = [min(band, len(read) - 1) for band in range(channels)]
        if valid[chosen].mean() >= LEAST_VALID:
            seen = (read.astype(np.float32) - values.low) / (values.high - values.low)
            found.append(of(fill_missing(seen, valid)[chosen].clip(0, 1)))
    return np.stack(found) if found else np.empty((0, 0))
