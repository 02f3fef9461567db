# SPDX-License-Identifier: Apache-2.0
"""Weights with which overlapping tiles are blended, and blending of tiles held in memory."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from .plan import Axis

BLENDS = ("gaussian", "hann")

FLOOR = 1e-3
"""Smallest weight, so that pixels seen by the rim of one tile only are still defined."""


def axis_weights(blend: str, tile: int) -> np.ndarray:
    """Window of one axis, (tile,) float64 in [FLOOR, 1].

    `gaussian` has sigma = tile / 8 (nnU-Net, Isensee et al. 2021,
    doi 10.1038/s41592-020-01008-z); `hann` is the raised cosine at pixel centres.
    """
    centred = np.arange(tile) - (tile - 1) / 2
    if blend == "gaussian":
        window = np.exp(-0.5 * (centred / (tile / 8)) ** 2)
    elif blend == "hann":
        window = np.cos(np.pi * centred / tile) ** 2
    else:
        raise ValueError(f"blend must be one of {BLENDS}, got {blend!r}")
    found: np.ndarray = np.maximum(window / window.max(), FLOOR)
    return found


def unity_weights(axis: Axis, blend: str, scale: int = 1) -> dict[int, np.ndarray]:
    """Weights of each chosen tile of an axis, by start; at every index they sum to one.

    Tiles form a product grid, so the N-D weights are products of these and need no normalising.

    Args:
        scale: the output has this many elements for each of the input.

    Returns:
        start -> (tile * scale,) float32.

    Raises:
        ValueError: an index of the region is covered by no tile (the message names it).
    """
    window = axis_weights(blend, axis.tile * scale)
    total = np.zeros((axis.starts[-1] + axis.tile) * scale)
    for start in axis.starts:
        total[start * scale : (start + axis.tile) * scale] += window
    first, last = (edge * scale for edge in axis.region)
    uncovered = np.flatnonzero(total[first:last] == 0)
    if uncovered.size or last > total.size:
        index = first + int(uncovered[0]) if uncovered.size else total.size
        raise ValueError(f"index {index} is covered by no tile")
    return {
        start: (window / total[start * scale : (start + axis.tile) * scale]).astype(np.float32)
        for start in axis.chosen
    }


def fuse(
    tiles: np.ndarray, starts: np.ndarray, size: Sequence[int], blend: str = "gaussian"
) -> np.ndarray:
    """Blend tiles that are all in memory and lie anywhere, not only on a `Plan`.

    Args:
        tiles: (N, C, *T), any real dtype; values in the caller's unit.
        starts: (N, D) int, first index of each tile along each of D axes; may be negative, and
            tiles may reach beyond the array: what lies outside is cut.
        size: length of the result along each axis.

    Returns:
        (C, *size), float32: the average of the tiles with the weights of `axis_weights`.

    Raises:
        ValueError: a voxel is covered by no tile (the message names the first one).

    Source: nnU-Net, Isensee et al. 2021 (doi 10.1038/s41592-020-01008-z).
    """
    sides = tiles.shape[2:]
    if not sides or starts.shape != (len(tiles), len(sides)) or len(sides) != len(size):
        raise ValueError(
            f"tiles {tiles.shape} and starts {starts.shape} do not fit an array of {len(size)} axes"
        )
    if min(size) < 1:
        raise ValueError(f"size must be at least 1, got {tuple(size)}")
    window = product([axis_weights(blend, side).astype(np.float32) for side in sides])
    result = np.zeros((tiles.shape[1], *size), np.float32)
    total = np.zeros(tuple(size), np.float32)
    for tile, start in zip(tiles, starts.tolist(), strict=True):
        ends = [min(f + side, length) for f, side, length in zip(start, sides, size, strict=True)]
        into = tuple(slice(max(f, 0), max(end, 0)) for f, end in zip(start, ends, strict=True))
        cut = tuple(slice(s.start - f, s.stop - f) for s, f in zip(into, start, strict=True))
        if any(s.start >= s.stop for s in into):
            continue
        result[:, *into] += (tile * window)[:, *cut]
        total[into] += window[cut]
    if not total.all():
        voxel = tuple(int(index) for index in np.argwhere(total == 0)[0])
        raise ValueError(f"voxel {voxel} is covered by no tile")
    result /= total
    return result


def product(weights: Sequence[np.ndarray]) -> np.ndarray:
    """Weights of a whole tile, (*T), from those of its axes."""
    return reduce(np.multiply.outer, weights)
