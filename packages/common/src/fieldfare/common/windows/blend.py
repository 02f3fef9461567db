# SPDX-License-Identifier: Apache-2.0
"""Weights with which overlapping tiles are blended: separable, and summing to one everywhere."""

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
    return np.maximum(window / window.max(), FLOOR)


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
