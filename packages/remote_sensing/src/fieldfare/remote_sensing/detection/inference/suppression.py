# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression: of boxes on one object the most confident stays."""

import numpy as np
import shapely

from .predict import Detections


def suppress(found: Detections, most: float) -> Detections:
    """The boxes that no more confident one of their class overlaps, most confident first.

    Over all tiles of a scene at once; only pairs that touch are compared, so it takes n log n for
    objects that do not pile up. The result does not depend on the order of the boxes: of equally
    confident ones the upper left comes first.

    Args:
        most: IoU above which the less confident of two boxes goes.
    """
    keys = (*found.boxes.T[::-1], found.classes, -found.scores)
    found = found.take(np.lexsort(keys))
    first, second = _overlapping(found, most)
    rivals: dict[int, list[int]] = {}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        rivals.setdefault(one, []).append(other)
    kept = np.ones(len(found), bool)
    for one in sorted(rivals):
        if kept[one]:
            kept[rivals[one]] = False
    return found.take(kept)


def _overlapping(found: Detections, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one class, the first the more confident, with IoU above `most`."""
    outlines = shapely.box(*found.boxes.T)
    one, other = shapely.STRtree(outlines).query(outlines)
    ordered = (one < other) & (found.classes[one] == found.classes[other])
    one, other = one[ordered], other[ordered]
    a, b = found.boxes[one], found.boxes[other]
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = sides.clip(min=0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clip(min=0).prod(1) for box in (a, b)]
    both = areas[0] + areas[1] - shared
    much = shared > most * both
    return one[much], other[much]
