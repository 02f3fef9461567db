# SPDX-License-Identifier: Apache-2.0
"""Faults that cases have in life, put into clean ones on purpose: to measure what is noticed.

Networks are calibrated and judged with them, see `training.knowledge`; they are no augmentation.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float32]


def exchanged(rng: np.random.Generator, images: Image) -> Image:
    """Two modalities under each other's names."""
    one, two = rng.permutation(len(images))[:2]
    order = np.arange(len(images))
    order[[one, two]] = order[[two, one]]
    return images[order].copy()


def mirrored(rng: np.random.Generator, images: Image) -> Image:
    """One modality with its front at the back, its top at the bottom, or left and right swapped."""
    result = images.copy()
    which, axis = int(rng.integers(len(images))), int(rng.integers(3))
    result[which] = np.flip(result[which], axis)
    return result


def blurred(rng: np.random.Generator, images: Image) -> Image:
    """All modalities, by 1 to 3 voxels; outside the brain stays 0."""
    sigma = rng.uniform(1.0, 3.0)
    smooth = np.stack([ndimage.gaussian_filter(image, sigma) for image in images])
    return np.where(images != 0, smooth, np.float32(0))


def noisy(rng: np.random.Generator, images: Image) -> Image:
    """All modalities, by 0.3 to 1.5 standard deviations of each."""
    result = images.copy()
    for image in result:
        inside = image != 0
        if inside.any():
            strength = rng.uniform(0.3, 1.5) * image[inside].std()
            image[inside] += strength * rng.standard_normal(np.count_nonzero(inside), np.float32)
    return result


def spiked(rng: np.random.Generator, images: Image) -> Image:
    """A few voxels of each modality a thousand times too bright."""
    result = images.copy()
    for image in result:
        flat = image.reshape(-1)
        places = rng.choice(np.flatnonzero(flat), 5, replace=False)
        flat[places] = 1000 * np.abs(image).max()
    return result


def scaled(rng: np.random.Generator, images: Image) -> Image:
    """A head of half to two thirds or one and a half to twice its size, as a wrong header says."""
    factor = rng.uniform(1.5, 2.0) ** rng.choice((-1, 1))
    return np.stack([ndimage.zoom(image, factor, order=1) for image in images])


CORRUPTIONS: dict[str, Callable[[np.random.Generator, Image], Image]] = {
    "exchanged": exchanged,
    "mirrored": mirrored,
    "blurred": blurred,
    "noisy": noisy,
    "spiked": spiked,
    "scaled": scaled,
}
"""By name: images (4, X, Y, Z), 0 outside the brain, to damaged ones; none but `scaled` changes the
shape. Labels stay right, but for those of `scaled`, which are to be zoomed alike."""
