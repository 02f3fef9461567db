# SPDX-License-Identifier: Apache-2.0
"""From the images of a case to what a network sees, and from its probabilities back."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from ..volumes.images import canonical_affine, from_canonical, spacing_of, to_canonical
from ..volumes.resampling import resample_axes, resampled_shape
from .intensities import brain_mask, normalise
from .naming import MODALITIES

SLAB = 2**19
"""Voxels of the input grid onto which probabilities are brought at a time."""


STRAY = 1e-4
"""Share of a brain below which what lies apart from it is none of it."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A brain as the network sees it, and where it came from.

    Attributes:
        images: (4, x, y, z) float32: axes canonical, normalised, cut to the brain's bounding box,
            at the network's spacing.
        mask: the brain in its box on the canonical input grid, holes filled, (X, Y, Z) bool.
        box: of the brain on the canonical input grid.
        shape: of the whole input grid, axes canonical.
        affine: of the input grid as it was given.
        spacing: of `images`, mm.
    """

    images: NDArray[np.float32]
    mask: NDArray[np.bool_]
    box: tuple[slice, slice, slice]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]


def prepare(
    images: NDArray[np.float32], affine: NDArray[np.float64], spacing: float, *, ndim: int = 3
) -> Prepared:
    """Make images ready for a network.

    Each modality is normalised (see `normalise`) on the grid it came on; then all are resampled. A
    2D network's slices stay apart as they are where that is further than `spacing`: between them
    there is nothing to interpolate that it would know.

    Args:
        images: (4, X, Y, Z) float32 as `cases.load` gives them.
        affine: (4, 4) of them.
        spacing: that the network works at, mm.
        ndim: 3, or 2 for a network of axial slices.
    """
    turned = to_canonical(images, affine)
    mask = brain_mask(turned)
    box = bounding_box(mask)
    brain = mask[box].copy()
    values = normalise(turned[(slice(None), *box)])
    shape = (turned.shape[1], turned.shape[2], turned.shape[3])
    x, y, z = spacing_of(canonical_affine(affine, images.shape[1:]))
    target = _target(spacing, z, ndim)
    small = resample_axes(values, resampled_shape(brain.shape, (x, y, z), target))
    return Prepared(
        np.ascontiguousarray(small), binary_fill_holes(brain), box, shape, affine, target
    )


def outline(
    shape: tuple[int, int, int], affine: NDArray[np.float64], spacing: float, *, ndim: int = 3
) -> Prepared:
    """As `prepare`, of a grid without images: a brain that fills all of it, without memory."""
    turned = canonical_affine(affine, shape)
    whole = to_canonical(np.broadcast_to(np.uint8(0), shape), affine).shape
    x, y, z = spacing_of(turned)
    target = _target(spacing, z, ndim)
    small = resampled_shape(whole, (x, y, z), target)
    return Prepared(
        np.broadcast_to(np.float32(0), (len(MODALITIES), *small)),
        np.broadcast_to(np.True_, whole),
        (slice(0, whole[0]), slice(0, whole[1]), slice(0, whole[2])),
        (whole[0], whole[1], whole[2]),
        affine,
        target,
    )


def _target(spacing: float, between: float, ndim: int) -> tuple[float, float, float]:
    """Voxels of a network, mm; `between` lies between the slices of the input."""
    return spacing, spacing, max(spacing, between) if ndim == 2 else spacing


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """The smallest box that holds a mask (X, Y, Z); the whole where the mask is empty.

    What lies apart along an axis, and is less than STRAY of all, is left out: a spike in the corner
    of an image is no brain.
    """
    ranges = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        counts = np.count_nonzero(mask, axis=others)
        inside = np.flatnonzero(counts)
        runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
        kept = [run for run in runs if counts[run].sum() > STRAY * counts.sum()]
        ends = (int(kept[0][0]), int(kept[-1][-1]) + 1) if kept else (0, mask.shape[axis])
        ranges.append(slice(*ends))
    return ranges[0], ranges[1], ranges[2]


def nest(probabilities: NDArray[np.floating]) -> None:
    """Make TC at most as probable as WT and ET as TC, in place, for (3, x, y, z)."""
    for inner in (1, 2):
        np.minimum(probabilities[inner], probabilities[inner - 1], out=probabilities[inner])


def slabs(
    prepared: Prepared, probabilities: NDArray[np.floating]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Bring probabilities onto the brain's box of the input grid, some rows at a time.

    Thresholding each part at once, the whole is never held in floating point.

    Args:
        probabilities: (C, x, y, z) on the grid of `prepared.images`.

    Yields:
        (rows of the box, (C, rows, Y, Z) float32), 0 outside the brain.
    """
    mask = prepared.mask
    step = max(1, SLAB // math.prod(mask.shape[1:]))
    for first in range(0, mask.shape[0], step):
        rows = slice(first, min(first + step, mask.shape[0]))
        part = resample_axes(probabilities, mask.shape, rows=(rows.start, rows.stop))
        yield rows, np.where(mask[rows], part, np.float32(0))


def to_input_grid(prepared: Prepared, data: NDArray[Any]) -> NDArray[Any]:
    """Put values of the brain's box onto the whole input grid as it was given.

    Args:
        data: (..., X, Y, Z) of the box, axes canonical.

    Returns:
        (..., X, Y, Z) of the input grid, 0 outside the box.
    """
    whole = np.zeros((*data.shape[:-3], *prepared.shape), data.dtype)
    whole[(..., *prepared.box)] = data
    return from_canonical(whole, prepared.affine)
