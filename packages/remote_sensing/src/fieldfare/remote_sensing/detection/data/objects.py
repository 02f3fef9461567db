# SPDX-License-Identifier: Apache-2.0
"""The objects of a raster: boxes or points with the names of their classes, in its pixels."""

from dataclasses import dataclass

import numpy as np

UNNAMED = ""
"""The class of an object whose label names none."""


@dataclass(frozen=True)
class Objects:
    """What is known to lie on one raster.

    Attributes:
        boxes: (N, 4) float64 left, top, right, bottom in pixels; a point has no extent.
        names: of the classes, one each.
        messages: what was done to the labels, for people.
    """

    boxes: np.ndarray
    names: tuple[str, ...]
    messages: tuple[str, ...] = ()

    @property
    def centres(self) -> np.ndarray:
        """(N, 2) x and y."""
        middle: np.ndarray = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2
        return middle

    @property
    def are_points(self) -> np.ndarray:
        """(N,) bool: which have no extent."""
        points: np.ndarray = (self.boxes[:, :2] == self.boxes[:, 2:]).all(1)
        return points

    def known(
        self, top: float, left: float, height: float, width: float, shape: tuple[int, int]
    ) -> np.ndarray:
        """Objects are complete on the whole raster: (rows, columns) of True."""
        return np.ones(shape, bool)

    def within(self, left: float, top: float, right: float, bottom: float) -> np.ndarray:
        """Numbers of those whose centre lies in a window."""
        x, y = self.centres.T
        return np.flatnonzero((x >= left) & (x < right) & (y >= top) & (y < bottom))

    def extended(self, side: tuple[float, float]) -> np.ndarray:
        """Boxes, (N, 4), with those of the points given a width and height in pixels."""
        boxes, points = self.boxes.copy(), self.are_points
        half = np.array(side) / 2
        boxes[points, :2] -= half
        boxes[points, 2:] += half
        return boxes

    def numbers(self, classes: tuple[str, ...]) -> np.ndarray:
        """(N,) int64 places in a list of classes; -1 of what is not among them.

        What has no name is of the only class.
        """
        places = {name: index for index, name in enumerate(classes)}
        if len(classes) == 1:
            places[UNNAMED] = 0
        return np.array([places.get(name, -1) for name in self.names], np.int64)
