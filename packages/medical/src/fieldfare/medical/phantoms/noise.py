# SPDX-License-Identifier: Apache-2.0
"""The grid that a phantom is drawn on, and smooth random fields on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """A box of voxels within the field of view; only what holds brain is ever computed.

    Attributes:
        first: index of its first voxel in the field of view.
        shape: voxels along each axis.
        spacing: mm.
    """

    first: tuple[int, int, int]
    shape: tuple[int, int, int]
    spacing: float

    @property
    def box(self) -> tuple[slice, ...]:
        """The box as an index into an array of the field of view."""
        return tuple(
            slice(first, first + n) for first, n in zip(self.first, self.shape, strict=True)
        )

    def axes(self) -> list[Field]:
        """Centres of the voxels along each axis, mm from the first voxel of the field of view."""
        return [
            (np.arange(n, dtype=np.float32) + first) * np.float32(self.spacing)
            for first, n in zip(self.first, self.shape, strict=True)
        ]

    def points(self) -> Field:
        """The same of every voxel, (3, X, Y, Z)."""
        return np.stack(np.meshgrid(*self.axes(), indexing="ij"))

    def blur(self, field: Field, sigma: float) -> Field:
        """Gaussian blur by `sigma` mm; outside the box is 0."""
        blurred: Field = ndimage.gaussian_filter(
            field, sigma / self.spacing, mode="constant", truncate=3
        )
        return blurred

    def noise(self, rng: np.random.Generator, scale: float) -> Field:
        """Normal noise that changes over about `scale` mm: (X, Y, Z), mean 0, deviation 1.

        Cubic B-splines over random values, so that no trace of the coarse lattice is seen.

        Args:
            scale: distance between the random values, mm; at least the spacing makes sense.
        """
        weights = [_spline(rng, n, self.spacing / scale) for n in self.shape]
        field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
        for weight in weights:  # each contraction puts its axis last: three bring them round
            field = np.tensordot(field, weight, (0, 1))

        return np.asarray(field / np.float32(SPREAD), np.float32)


SPREAD = (151 / 315) ** 1.5
"""Deviation of noise under cubic B-splines in 3D; 151/315 is the integral of the squared spline."""


def _spline(rng: np.random.Generator, length: int, step: float) -> Field:
    """Weights (length, knots) of cubic B-splines, the lattice shifted at random."""
    place = np.arange(length) * step + rng.random()
    cell = np.floor(place).astype(int)
    t = place - cell
    pieces = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((length, int(cell[-1]) + 4), np.float32)
    for offset, piece in enumerate(pieces):
        weights[np.arange(length), cell + offset] = piece / 6
    return weights
