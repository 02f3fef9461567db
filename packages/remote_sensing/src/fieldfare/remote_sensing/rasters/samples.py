# SPDX-License-Identifier: Apache-2.0
"""Windows spread evenly over a raster: what it looks like, without reading all of it."""

from collections.abc import Iterator

import numpy as np

from .reading import Scene


def windows_over(scene: Scene, side: int, across: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Values and validity of square windows, row by row, each (bands, h, w).

    Args:
        scene: looked at as a whole, whatever part is wanted.
        side: of a window in pixels; less where the raster is smaller.
        across: how many windows lie along each axis at most.
    """
    whole = (scene.dataset.height, scene.dataset.width)
    sides = (min(side, whole[0]), min(side, whole[1]))
    places = [
        np.unique(np.linspace(0, length - size, min(across, -(-length // size))).astype(int))
        for length, size in zip(whole, sides, strict=True)
    ]
    for top in places[0].tolist():
        for left in places[1].tolist():
            rows, columns = (top, top + sides[0]), (left, left + sides[1])
            values = scene.read(rows, columns)
            yield values, scene.valid(values, rows, columns)
