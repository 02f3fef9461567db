# SPDX-License-Identifier: Apache-2.0
"""Rings of many polygons in one table, so that corners are kept, moved and drawn all at once."""

from dataclasses import dataclass

import numpy as np
import shapely


@dataclass(frozen=True)
class Outlines:
    """Rings of polygons in one table, each without the vertex that closes it.

    Attributes:
        points: (P, 2) corners, one that several vertices share only once.
        corner: (V,) number of the point of each vertex.
        ring: (V,) number of the ring of each vertex.
        polygon: (R,) number of the polygon of each ring, the outer one first.
        count: number of polygons.
    """

    points: np.ndarray
    corner: np.ndarray
    ring: np.ndarray
    polygon: np.ndarray
    count: int

    @classmethod
    def of(cls, polygons: np.ndarray) -> "Outlines":
        rings, polygon = shapely.get_rings(polygons, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        opened = np.diff(ring, append=-1) == 0
        points, corner = np.unique(numbers(xy[opened]), return_inverse=True)
        points = np.column_stack((points.real, points.imag))
        return cls(points, corner, ring[opened], polygon, len(polygons))

    @property
    def owner(self) -> np.ndarray:
        """(V,) number of the polygon of each vertex."""
        owner: np.ndarray = self.polygon[self.ring]
        return owner

    def drawn(self, xy: np.ndarray, ring: np.ndarray) -> np.ndarray:
        """Polygons with other vertices in these rings; one of fewer than three is left out, and a
        polygon without outer ring is empty."""
        solid = np.bincount(ring, minlength=len(self.polygon)) >= 3
        outer = np.diff(self.polygon, prepend=-1) != 0
        whole = np.zeros(self.count, bool)
        whole[self.polygon[outer & solid]] = True
        solid &= whole[self.polygon]
        kept = solid[ring]
        drawn = np.full(self.count, shapely.Polygon(), object)
        if kept.any():
            rings = shapely.linearrings(xy[kept], indices=(np.cumsum(solid) - 1)[ring[kept]])
            shapely.polygons(rings, indices=self.polygon[solid], out=drawn)
        return drawn


def numbers(xy: np.ndarray) -> np.ndarray:
    """(N, 2) points as (N,) complex numbers, which can be sorted and looked up."""
    return np.ascontiguousarray(xy).view(np.complex128)[:, 0]


def following(ring: np.ndarray) -> np.ndarray:
    """(V,) index of the vertex after each one along its ring."""
    after = np.arange(1, len(ring) + 1)
    first = np.flatnonzero(np.diff(ring, prepend=-1))
    after[np.roll(first, -1) - 1] = first
    return after
