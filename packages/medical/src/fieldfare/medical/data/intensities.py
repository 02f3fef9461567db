# SPDX-License-Identifier: Apache-2.0
"""What of an image is background, and the brain's values as networks know them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

CLIPPED = (0.5, 99.5)
"""Percentiles of a modality's voxels in the brain, beyond which values count as these."""

FACES = 0.2
"""Share of an image's faces from which a value that is the commonest there is background."""

LESS = 0.1
"""The same of 0 and of the smallest value of all, of which padding is made."""

Image = NDArray[np.float32]


def backgrounds(image: Image) -> list[float]:
    """The values that stand for no tissue, the commonest first; 0 where nothing tells of another.

    No tissue has one and the same value over a part of the faces of an image, but padding has.

    Args:
        image: (X, Y, Z), any unit; NaN is never tissue and not listed.
    """
    faces = _faces(image)
    values, counts = np.unique(faces[np.isfinite(faces)], return_counts=True)
    shares = counts / faces.size
    found: list[float] = []
    lowest = np.fmin.reduce(image, axis=None)
    for place in np.argsort(-shares, kind="stable"):
        value, share = float(values[place]), shares[place]
        if share < LESS:
            break
        padding = value == 0 or value == lowest
        if padding or (not found and share >= FACES):
            found.append(value)
    return found or [0.0]


def _faces(image: Image) -> Image:
    """The voxels of the six faces, those of edges several times."""
    # Views: np.take would copy a whole image that is not in C order, as files give it.
    sides = [np.moveaxis(image, axis, 0)[end] for axis in range(3) for end in (0, -1)]
    return np.concatenate([side.ravel() for side in sides])


def without_background(image: Image, source: str | Path = "image") -> tuple[Image, list[str]]:
    """Make the background of an image 0, and nothing else.

    Where it has another value, all values are shifted, so that no tissue is 0: what looks at them
    (`normalise`, pictures) does not depend on where 0 lies.

    Args:
        image: (X, Y, Z), any unit, some of it perhaps NaN.
        source: the file it comes from, for the message.

    Returns:
        The image, itself where its background is 0 already; what a user should know, in words.

    Raises:
        InputError: NaN that is no background but damage, for the faces of the image have none.
    """
    notes = []
    missing = int(np.count_nonzero(np.isnan(image))) if np.isnan(image.min()) else 0
    if missing and np.isnan(_faces(image)).mean() < LESS:
        raise InputError(f"{source}: {missing} voxels inside it are NaN; set them to 0 first")
    found = backgrounds(image)
    if missing:
        notes.append(f"{missing} voxels are NaN and were taken as background")
    if found != [0.0]:
        told = " and ".join(f"{value:g}" for value in found)
        notes.append(f"the background is {told} where 0 is usual, and was taken as such")
    if not notes:
        return image, notes
    outside = np.isnan(image) | np.isin(image, np.array(found, np.float32))
    return np.where(outside, np.float32(0), image - np.float32(found[0])), notes


def brain_mask(images: Image) -> NDArray[np.bool_]:
    """Where any modality is not 0, (X, Y, Z), for images (4, X, Y, Z) as `load` gives them.

    Not where it is over 0: resampling leaves small negative values inside stripped brains.
    """
    inside: NDArray[np.bool_] = (images != 0).any(axis=0)
    return inside


def normalise(images: Image) -> Image:
    """Give each modality mean 0 and standard deviation 1 over its voxels other than 0.

    Values beyond the percentiles CLIPPED of those voxels count as these: a spike or a few vessels
    would else decide on the range of all. It raised every Dice of `reversible_unet_phantom`, which
    was trained without it, on two real gliomas.

    Args:
        images: (4, X, Y, Z) in any unit, 0 outside the brain.

    Returns:
        (4, X, Y, Z) float32; voxels of 0 stay 0, and so does a missing modality.

    Source: nnU-Net, Isensee et al. 2021 (doi 10.1038/s41592-020-01008-z), z-score in the mask and,
    for CT, these percentiles.
    """
    result = np.zeros(images.shape, np.float32)
    for image, normal in zip(images, result, strict=True):
        inside = image != 0
        values = image[inside]
        if not values.size:
            continue
        low, high = np.percentile(values, CLIPPED)
        values = np.clip(values, low, high)
        if (deviation := values.std(dtype=np.float64)) > 0:
            normal[inside] = (values - values.mean(dtype=np.float64)) / deviation
    return result
