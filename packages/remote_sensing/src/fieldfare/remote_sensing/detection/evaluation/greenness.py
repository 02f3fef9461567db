# SPDX-License-Identifier: Apache-2.0
"""Trees without training: maxima of smoothed greenness. The baseline that a model must beat."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

NAME = "greenness"


@dataclass(frozen=True)
class Maxima:
    """What is taken for a tree.

    The defaults gave the best F1 within 6 m on the validation city of `leyolo_nano_trees`
    (`benchmarks/remote_sensing/detection_trees.py baseline`).

    Attributes:
        blur: standard deviation of the smoothing, metres.
        apart: radius within which only the greenest place is a tree, metres.
        least: smoothed greenness, less `dark` of brightness, from which a place may be one.
        dark: how much brightness, 0 to 1, counts against greenness: grass is brighter than trees.
    """

    blur: float = 1.2
    apart: float = 3.6
    least: float = -0.14
    dark: float = 0.5


def greenness(image: np.ndarray) -> np.ndarray:
    """Twice green less red and blue, over their sum; 0 is grey.

    Args:
        image: (3, h, w) red, green, blue in any one unit.

    Returns:
        (h, w) from -1 to 2.

    Source: excess green of chromatic coordinates, Woebbecke et al. 1995 (doi 10.13031/2013.27838).
    """
    red, green, blue = image[:3].astype(np.float32)
    found: np.ndarray = (2 * green - red - blue) / np.maximum(red + green + blue, 1e-6)
    return found


def smoothed(image: np.ndarray, gsd: float, settings: Maxima) -> np.ndarray:
    """(h, w): what maxima are sought of; arguments as of `green_maxima`."""
    index = greenness(image) - settings.dark * image[:3].mean(0)
    found: np.ndarray = ndimage.gaussian_filter(index, settings.blur / gsd)
    return found


def green_maxima(image: np.ndarray, gsd: float, settings: Maxima | None = None) -> np.ndarray:
    """(N, 2) x and y in pixels of the maxima, greenest first.

    Args:
        image: (3, h, w) red, green, blue in [0, 1].
        gsd: metres per pixel.
    """
    settings = settings or Maxima()
    smooth = smoothed(image, gsd, settings)
    reach = max(1, round(settings.apart / gsd))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = x**2 + y**2 <= reach**2
    top = smooth == ndimage.maximum_filter(smooth, footprint=disc, mode="nearest")
    # pixels of one height side by side are one maximum
    parts, count = ndimage.label(top & (smooth >= settings.least), np.ones((3, 3)))
    numbers = range(1, count + 1)
    middles = np.array(ndimage.center_of_mass(parts > 0, parts, numbers)).reshape(-1, 2)
    heights = np.array(ndimage.maximum(smooth, parts, numbers))
    order = np.argsort(-heights, kind="stable")
    return middles[order][:, ::-1] + 0.5
