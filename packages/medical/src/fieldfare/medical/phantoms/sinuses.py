# SPDX-License-Identifier: Apache-2.0
"""The dural sinuses, which skull-stripping leaves on the brain: blood that contrast agent makes the
brightest of all, and that flows too fast for other images to show."""

import itertools

import numpy as np

from .noise import Field, Grid

Point = tuple[float, float, float]
Line = tuple[Point, ...]

TRANSVERSE: Line = ((0, -98, -14), (30, -93, -23), (50, -76, -30), (60, -56, -33), (52, -42, -42))
"""From where the sinuses meet to where one leaves the skull; mm of MNI space (right, front, up)."""

SAGITTAL: Line = (
    *((0, -98, -14), (0, -103, 12), (0, -84, 48), (0, -40, 75)),
    *((0, 10, 73), (0, 45, 52), (0, 64, 22)),
)
"""The upper one."""

REACH = 12.0
"""Mm from its middle up to which a sinus may be drawn."""


def near_sinus(places: Field) -> Field:
    """How near places (..., 3) of MNI space are to the middle of a sinus: 1 there, 0 from REACH."""
    lines = (SAGITTAL, TRANSVERSE, tuple((-x, y, z) for x, y, z in TRANSVERSE))
    nearest = np.min([to_line(places, line) for line in lines], axis=0)
    return np.asarray(np.clip(1 - nearest / REACH, 0, 1), np.float32)


def draw_blood(rng: np.random.Generator, grid: Grid, near: Field) -> Field:
    """Fraction of each voxel that is blood of a sinus, (X, Y, Z), of `near_sinus` on the grid."""
    radius = rng.uniform(2, 6.5) + grid.noise(rng, 20)
    depth = radius - REACH * (1 - near)
    return np.asarray(np.clip(depth / max(grid.spacing, 1.5) + 0.5, 0, 1) * (near > 0), np.float32)


def to_line(places: Field, line: Line) -> Field:
    """Distance of places (..., 3) from a line through points, mm."""
    nearest = np.full(places.shape[:-1], np.inf, np.float32)
    corners = np.array(line, np.float32)
    for first, last in itertools.pairwise(corners):
        along = last - first
        share = np.clip((places - first) @ along / (along @ along), 0, 1)
        away = places - first - share[..., None] * along
        nearest = np.minimum(nearest, np.sqrt((away**2).sum(axis=-1)))
    return nearest
