# SPDX-License-Identifier: Apache-2.0
"""Between the grid of a scan and the spacing a network works at, axis by axis.

Both grids have the same axes and cover the same length; the ends of the first voxel coincide, not
the centres. Enlarging is linear interpolation; in reducing, the triangle grows with the factor, so
that no voxel is passed over (as Pillow's `BILINEAR` does).
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Voxels along each axis that cover the same length at another spacing, at least 1.

    Args:
        shape: of the grid there is.
        spacing, target: sizes of a voxel there is and of one to have, mm.
    """
    sizes = zip(shape, spacing, target, strict=True)
    return tuple(max(1, round(length * old / new)) for length, old, new in sizes)


def resample_axes(
    data: Float, shape: Sequence[int], *, rows: tuple[int, int] | None = None
) -> Float:
    """Resample the last axes of an array to another shape.

    Args:
        data: (..., *size), real values.
        shape: of the last len(shape) axes of the result.
        rows: half-open range of the first of those axes; only these rows are computed, and they
            are those of the whole result.

    Returns:
        (..., *shape) float32; the array itself where nothing changes.
    """
    lead = data.ndim - len(shape)
    for number, length in enumerate(shape):
        axis, size = lead + number, data.shape[lead + number]
        wanted = rows if number == 0 and rows is not None else (0, length)
        if length == size:
            data = data[(slice(None),) * axis + (slice(*wanted),)]
            continue
        matrix = _matrix(size, length)[slice(*wanted)]
        # Only the rows that have weight are touched: a slab costs a slab.
        used = np.flatnonzero(matrix.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        part = data[(slice(None),) * axis + (slice(first, last),)]
        product = np.tensordot(
            matrix[:, first:last], part.astype(np.float32, copy=False), (1, axis)
        )
        data = np.moveaxis(product, 0, axis)
    return data.astype(np.float32, copy=False)


@cache
def _matrix(size: int, length: int) -> Float:
    """Weights of an axis, (length, size); each row sums to 1."""
    scale = size / length
    centres = (np.arange(length) + 0.5) * scale - 0.5
    # Beyond the ends the outermost voxel goes on.
    reach = int(np.ceil(max(scale, 1.0)))
    places = np.arange(-reach, size + reach)
    weights = np.maximum(0, 1 - np.abs(places - centres[:, None]) / max(scale, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    result = weights[:, reach : reach + size].copy()
    result[:, 0] += weights[:, :reach].sum(axis=1)
    result[:, -1] += weights[:, reach + size :].sum(axis=1)
    return result.astype(np.float32)
