# SPDX-License-Identifier: Apache-2.0
"""The baseline without learning: the dark channel prior, refined by a guided filter.

He, Sun and Tang 2009, *Single image haze removal using dark channel prior* (doi
10.1109/CVPR.2009.5206515): around almost every clear pixel something is dark in some band, so what
light is left there is the haze's. The transmission is refined by the guided filter of the same
authors (2010, doi 10.1007/978-3-642-15549-9_1) in place of soft matting. Images are (bands, H, W)
in [0, 1].
"""

from collections.abc import Iterable

import numpy as np
from scipy import ndimage

PATCH = 15
"""Side in pixels of the window of the minimum."""

KEPT = 0.95
"""Omega: the share of the haze that is taken off."""

LEAST_TRANSMISSION = 0.1

BRIGHTEST = 0.001
"""Share of the dark channel's pixels among which the light of the haze is sought."""

RADIUS, EPSILON = 60, 1e-3
"""Of the guided filter: half of the window's side, and how much variance counts as flat."""

REACH = PATCH // 2 + 2 * RADIUS
"""Pixels around a pixel that its result depends on."""


def dark_channel(image: np.ndarray) -> np.ndarray:
    """Smallest value of any band in the window around each pixel, (H, W); eq. 5."""
    found: np.ndarray = ndimage.minimum_filter(image.min(axis=0), PATCH, mode="reflect")
    return found


def haze_light(images: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray | None:
    """A of each band, (bands,): the brightest of the pixels where the dark channel is highest.

    Bright is the mean over bands.

    Args:
        images: parts of one scene, and (H, W) bool which of their pixels count.

    Returns:
        None where no pixel counts.
    """
    pixels, darkness = [], []
    total = 0
    for image, counts in images:
        total += int(counts.sum())
        if counts.any():
            dark = dark_channel(image)[counts]
            best = _highest(dark, int(BRIGHTEST * dark.size))
            pixels.append(image[:, counts][:, best])
            darkness.append(dark[best])
    if not total:
        return None
    best = _highest(np.concatenate(darkness), int(BRIGHTEST * total))
    found = np.concatenate(pixels, axis=1)[:, best]
    light: np.ndarray = found[:, found.mean(axis=0).argmax()]
    return light.clip(1e-3, None).astype(np.float32)


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """Where the highest values stand, one at least."""
    found: np.ndarray = np.argsort(values, kind="stable")[-max(1, count) :]
    return found


def guided_filter(guide: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (H, W) smoothed along the edges of a grey guide (H, W).

    Source: He et al. 2010, eq. 5, 6 and 8.
    """

    def mean(of: np.ndarray) -> np.ndarray:
        found: np.ndarray = ndimage.uniform_filter(of, 2 * RADIUS + 1, mode="reflect")
        return found

    guide, values = guide.astype(np.float64), values.astype(np.float64)
    means = mean(guide), mean(values)
    slope = (mean(guide * values) - means[0] * means[1]) / (
        mean(guide * guide) - means[0] ** 2 + EPSILON
    )
    smoothed: np.ndarray = mean(slope) * guide + mean(means[1] - slope * means[0])
    return smoothed


def transmission(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """t of each pixel, (H, W), not below `LEAST_TRANSMISSION`; eq. 12."""
    raw = 1 - KEPT * dark_channel(image / light[:, None, None])
    refined = guided_filter(image.mean(axis=0), raw)
    return refined.clip(LEAST_TRANSMISSION, 1).astype(np.float32)


def remove_haze(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """The clear image, (bands, H, W) float32, not clipped; eq. 22.

    Args:
        light: A of each band, see `haze_light`.
    """
    spread = light.astype(np.float32)[:, None, None]
    clear: np.ndarray = (image - spread) / transmission(image, light) + spread
    return clear
