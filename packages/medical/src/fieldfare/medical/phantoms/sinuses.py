# SPDX-License-Identifier: Apache-2.0
"""The dural sinuses, which skull-stripping leaves on the brain: blood that contrast agent makes the
brightest of all, and that flows too fast for other images to show."""

import itertools

import numpy as np

from .noise import Field

Point = tuple[float, float, float]
Line = tuple[Point, ...]

TRANSVERSE: Line = ((0, -98, -14), (30, -93, -23), (50, -76, -30), (60, -56, -33), (52, -42, -42))
"""From where the sinuses meet to where one leaves the skull; mm of MNI space (right, front, up)."""

SAGITTAL: Line = (
    *((0, -98, -14), (0, -103, 12), (0, -84, 48), (0, -40, 75)),
    *((0, 10, 73), (0, 45, 52), (0, 64, 22)),
)
"""The upper one."""

RADIUS = 4.5
"""Mm."""


def in_sinus(places: Field) -> Field:
    """Depth in mm of places (..., 3) of MNI space in any sinus, negative outside."""
    lines = (SAGITTAL, TRANSVERSE, tuple((-x, y, z) for x, y, z in TRANSVERSE))
    nearest = np.min([to_line(places, line) for line in lines], axis=0)
    return np.asarray(RADIUS - nearest, np.float32)


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
