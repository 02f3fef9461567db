# SPDX-License-Identifier: Apache-2.0
"""Training patches in other orientations, light and sharpness."""

import numpy as np
from scipy import ndimage


def orient(
    image: np.ndarray, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One of the eight orientations of a square, each as likely.

    Args:
        image: (side, side, bands).
        boxes: (N, 4) left, top, right, bottom in pixels.
    """
    side = image.shape[0]
    if rng.random() < 0.5:
        image, boxes = image.swapaxes(0, 1), boxes[:, [1, 0, 3, 2]]
    for axis in (0, 1):
        if rng.random() < 0.5:
            image = np.flip(image, axis)
            low, high = (1, 3) if axis == 0 else (0, 2)
            boxes = boxes.copy()
            boxes[:, [low, high]] = side - boxes[:, [high, low]]
    return image, boxes


def relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other light, contrast, colour, sharpness and noise: (h, w, bands) float32 in [0, 1]."""
    bands = image.shape[-1]
    if rng.random() < 0.3:
        sigma = rng.uniform(0.3, 1.2)
        soft = ndimage.gaussian_filter(image, (sigma, sigma, 0))
        image = soft if rng.random() < 0.6 else image + 0.7 * (image - soft)
    if rng.random() < 0.8:
        mean = image.mean()
        gain = rng.uniform(0.7, 1.3, size=1) * rng.uniform(0.9, 1.1, size=bands)
        image = (image - mean) * gain + mean + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.5:
        shift = rng.uniform(-0.06, 0.06, size=bands)
        grey = image.mean(-1, keepdims=True)
        image = grey + (image - grey) * rng.uniform(0.5, 1.5) + shift
    image = image.clip(0, 1)
    if rng.random() < 0.4:
        image = image ** rng.uniform(0.7, 1.4)
    if rng.random() < 0.2:
        image = image + rng.normal(0, rng.uniform(0.005, 0.03), image.shape)
    relit: np.ndarray = image.clip(0, 1).astype(np.float32)
    return relit
