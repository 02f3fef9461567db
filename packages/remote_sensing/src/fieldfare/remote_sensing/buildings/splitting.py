# SPDX-License-Identifier: Apache-2.0
"""Parting roofs that touch: seeds inside the predicted edges, grown back by a watershed.

Meyer and Beucher 1990, *Morphological segmentation* (doi 10.1016/1047-3203(90)90014-M).
"""

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

SEED_SHARE = 0.25
"""A seed smaller than this share of the smallest building wanted is noise."""


def split(inside: np.ndarray, edge: np.ndarray, least: float) -> np.ndarray:
    """Number the buildings of one connected region.

    Args:
        inside: (h, w) bool, the region.
        edge: (h, w) float, probability of an edge, high along outlines and where roofs touch.
        least: pixels of the smallest building that is wanted.

    Returns:
        (h, w) int32, 1 to n inside and 0 outside; all 1 where fewer than two seeds are found or a
        part would be smaller than `least`.
    """
    numbers = inside.astype(np.int32)
    seeds, count = ndimage.label(inside & (edge < 0.5))
    if count < 2:
        return numbers
    sizes = np.bincount(seeds.ravel(), minlength=count + 1)
    kept = np.flatnonzero(sizes[1:] >= max(1.0, SEED_SHARE * least)) + 1
    while len(kept) > 1:
        markers = np.isin(seeds, kept) * seeds
        parts = watershed(edge, markers, mask=inside)
        areas = np.bincount(parts.ravel(), minlength=count + 1)
        small = kept[areas[kept] < least]
        if not small.size:
            lookup = np.zeros(count + 1, np.int32)
            lookup[kept] = np.arange(1, len(kept) + 1)
            return lookup[parts]
        kept = np.setdiff1d(kept, small[np.argmin(areas[small])])
    return numbers
