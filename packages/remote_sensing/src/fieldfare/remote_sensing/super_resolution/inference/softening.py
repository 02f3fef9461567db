# SPDX-License-Identifier: Apache-2.0
"""Undo an unsharp mask before a raster is enlarged: its halos would be enlarged as if they were
there."""

from functools import cache

import numpy as np
from scipy import ndimage

SIGMA = 0.8
"""Input pixels, of the mask that is undone; those in use have about 0.5 to 1.2."""

RADIUS = 6
"""Input pixels around a pixel that it depends on."""

_SIDE = 64


def excess(sharpness: float, clean: float) -> float:
    """How many dB near the Nyquist frequency are to be undone.

    Args:
        sharpness: of `looks.SIGNS`.
        clean: what clean reductions hardly exceed. Half of it is left, since the estimate is rough
            and to blur what was not sharpened costs more than to leave a little.
    """
    return max(0.0, sharpness - clean / 2)


def softened(image: np.ndarray, decibels: float) -> np.ndarray:
    """Undo a mask image + amount (image - blurred) that raised the power at Nyquist by so much.

    Args:
        image: (C, h, w) float32; the outer RADIUS pixels come out as if the image were reflected.

    Returns:
        Like image.
    """
    if decibels <= 0:
        return image
    kernel = _kernel(round(decibels, 2))
    return np.stack([ndimage.correlate(band, kernel, mode="mirror") for band in image])


@cache
def _kernel(decibels: float) -> np.ndarray:
    """The inverse filter 1 / (1 + amount (1 - G)), (2 RADIUS + 1)^2 of sum 1."""

    def gaussian(square: np.ndarray) -> np.ndarray:
        passed: np.ndarray = np.exp(-2 * (np.pi * SIGMA) ** 2 * square)
        return passed

    at_nyquist = gaussian(np.array(0.5**2))
    amount = (10 ** (decibels / 20) - 1) / (1 - at_nyquist)
    frequencies = np.fft.fftfreq(_SIDE) ** 2
    response = 1 / (1 + amount * (1 - gaussian(frequencies[:, None] + frequencies)))
    kernel = np.fft.fftshift(np.fft.ifft2(response).real)
    part = slice(_SIDE // 2 - RADIUS, _SIDE // 2 + RADIUS + 1)
    cut = kernel[part, part]
    return np.asarray(cut / cut.sum(), np.float32)
