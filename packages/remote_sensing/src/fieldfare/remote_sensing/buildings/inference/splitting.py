# SPDX-License-Identifier: Apache-2.0
"""Parting roofs that touch: seeds inside the predicted edges, grown back by a watershed.

Meyer and Beucher 1990, *Morphological segmentation* (doi 10.1016/1047-3203(90)90014-M).
"""

import heapq

import numpy as np
from scipy import ndimage

SEED_SHARE = 0.25
"""A seed smaller than this share of the smallest building wanted is noise."""


def split(inside: np.ndarray, edge: np.ndarray, least: float) -> np.ndarray:
    """Number the buildings of one connected region.

    Args:
        inside: (h, w) bool, the region.
        edge: (h, w) float, probability of an edge, high along outlines and where roofs touch.
        least: pixels of the smallest building that is wanted.

    Returns:
        (h, w) int32, 1 to n inside and 0 outside. A part smaller than `least` goes to the
        neighbour that the lowest edge parts it from.
    """
    seeds, count = ndimage.label(inside & (edge < 0.5))
    sizes = np.bincount(seeds.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = sizes >= max(1.0, SEED_SHARE * least)
    if kept.sum() < 2:
        return inside.astype(np.int32)
    seeds[~kept[seeds]] = 0
    from skimage.segmentation import watershed

    # Only the rim of a seed has anywhere to grow; its inside would fill the watershed's queue.
    core = ndimage.minimum_filter(seeds, footprint=ndimage.generate_binary_structure(2, 1))
    core[core != seeds] = 0
    parts: np.ndarray = watershed(edge, seeds, mask=inside & (core == 0))
    np.copyto(parts, core, where=core > 0)
    numbers: np.ndarray = _without_small(parts, edge, least)[parts]
    return numbers


def _without_small(parts: np.ndarray, edge: np.ndarray, least: float) -> np.ndarray:
    """New number, from 1, of each part, small ones with that of the part they go to: as if their
    seed had not been there, for the flood enters a basin over its lowest pass."""
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    walls = _walls(parts, edge)
    goes_to = np.arange(len(areas))
    queue = [(area, part) for part, area in enumerate(areas.tolist()) if 0 < area < least]
    heapq.heapify(queue)
    while queue:
        area, part = heapq.heappop(queue)
        if goes_to[part] != part or areas[part] != area or not walls.get(part):
            continue
        other = min(walls[part], key=lambda near: (*walls[part][near], near))
        for near, (height, length) in walls.pop(part).items():
            del walls[near][part]
            if near != other:
                known = walls[other].get(near, (np.inf, 0))
                walls[other][near] = walls[near][other] = (
                    min(height, known[0]),
                    length + known[1],
                )
        goes_to[part] = other
        areas[other] += area
        if areas[other] < least:
            heapq.heappush(queue, (int(areas[other]), other))
    for part in range(len(goes_to)):
        while goes_to[goes_to[part]] != goes_to[part]:
            goes_to[part] = goes_to[goes_to[part]]
    present = (areas > 0) & (goes_to == np.arange(len(areas)))
    return np.where(areas > 0, np.cumsum(present)[goes_to], 0).astype(np.int32)


def _walls(parts: np.ndarray, edge: np.ndarray) -> dict[int, dict[int, tuple[float, int]]]:
    """Of each part its neighbours, each with the lowest edge between the two and minus the number
    of pixels along it."""
    pairs, heights = [], []
    for one, other in (
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        between = (parts[one] != parts[other]) & (parts[one] > 0) & (parts[other] > 0)
        pairs.append(np.column_stack([parts[one][between], parts[other][between]]))
        heights.append(np.maximum(edge[one][between], edge[other][between]))
    found, index = np.unique(np.sort(np.concatenate(pairs)), axis=0, return_inverse=True)
    lowest = np.full(len(found), np.inf)
    np.minimum.at(lowest, index.ravel(), np.concatenate(heights))
    lengths = np.bincount(index.ravel(), minlength=len(found))
    walls: dict[int, dict[int, tuple[float, int]]] = {}
    for (one, other), height, length in zip(
        found.tolist(), lowest.tolist(), lengths.tolist(), strict=True
    ):
        walls.setdefault(one, {})[other] = walls.setdefault(other, {})[one] = (height, -length)
    return walls
