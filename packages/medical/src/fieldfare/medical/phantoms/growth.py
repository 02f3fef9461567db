# SPDX-License-Identifier: Apache-2.0
"""Gliomas that grow: cells divide and wander, faster along white matter, never into fluid.

The density c of cells (1 where there is no room for more) follows Fisher's equation,
dc/dt = div(D grad c) + r c (1 - c), with D five to ten times larger in white matter than in grey.
T2 and FLAIR show what is denser than 0.16, contrast agent what is denser than 0.8.

Source: Swanson et al. 2008 (doi 10.1038/sj.bjc.6604125), Harpold et al. 2007
(doi 10.1097/nen.0b013e31802d9000) for the equation and both thresholds.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .anatomy import Anatomy
from .lesions import Tumour
from .noise import Field
from .raters import VISIBLE

SEEN, DENSE = 0.16, 0.8
STEP = 2.0
"""Mm between the places where growth is computed, at least a voxel of the phantom."""

CORES, WHOLES = (1.5e3, 5e4), (2e4, 2e5)
"""Mm^3 that is denser than DENSE and than SEEN, drawn evenly by their logarithm; growth ends with
the one that is reached first, in a tumour that infiltrates with the second."""

KINDS = {"glioblastoma": 0.55, "low-grade": 0.3, "infiltrating": 0.15}
"""Share of tumours: necrosis in an enhancing rim; a core that does not enhance; hardly any core."""


def grow_tumour(rng: np.random.Generator, anatomy: Anatomy, centre: NDArray[np.float64]) -> Tumour:
    """Let a tumour grow from a place until it has a random size.

    Args:
        centre: mm from the field of view's first voxel, in or near white matter.
    """
    grid = anatomy.grid
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    density = _density(rng, anatomy, centre, kind)
    # What water shows goes along with density: at SEEN so much that a rater sees it.
    water = np.clip(VISIBLE + (density - SEEN) / 0.24, 0, 1) * anatomy.brain
    uneven = 0.1 * grid.noise(rng, 8)
    dense = np.clip((density - DENSE + uneven) / 0.1 + 0.5, 0, 1)
    if kind == "infiltrating":
        dense = dense * np.clip(grid.noise(rng, 12) - 0.5, 0, 1)
    leaky = np.zeros_like(dense)
    if kind == "glioblastoma":
        dead = np.clip((density - rng.uniform(0.93, 0.995)) / 0.02 + 0.3 * grid.noise(rng, 7), 0, 1)
        fed = np.clip(0.9 + rng.uniform(0.2, 0.7) * grid.noise(rng, rng.uniform(6, 12)), 0.1, 1)
        leaky = dense * (1 - dead) * fed
    core = np.minimum(dense, water)
    leaky = np.minimum(leaky, core)
    fractions = np.stack([core - leaky, water - core, leaky]).astype(np.float32)
    return Tumour(fractions, kind)


def _density(
    rng: np.random.Generator, anatomy: Anatomy, centre: NDArray[np.float64], kind: str
) -> Field:
    """Of cells, (X, Y, Z) in [0, 1]."""
    grid = anatomy.grid
    step = max(1, round(STEP / grid.spacing))
    size = step * grid.spacing
    white, grey = (anatomy[name][::step, ::step, ::step] for name in ("white", "grey"))
    reach = rng.uniform(2.5, 6.0) if kind == "infiltrating" else rng.uniform(0.7, 2.6)
    # In units of mm^2 for each doubling time: the front runs 2 * reach in it.
    ease = (
        reach**2 * (white + grey * rng.uniform(0.1, 0.2)) * np.exp(0.3 * _coarse(rng, white.shape))
    )
    ease = np.where(white + grey > 0.4, ease, 0).astype(np.float32)
    walls = [_between(ease, axis) / size**2 for axis in range(3)]
    room = ease > 0
    time = min(0.15, 0.9 / (6 * float(max(wall.max() for wall in walls)) + 1e-6))
    first = np.array(centre) / size - np.array(grid.first) / step
    away = np.sqrt(
        sum((axis - at) ** 2 for axis, at in zip(np.indices(room.shape), first, strict=True))
    )
    seeds = np.argwhere(room)
    start = seeds[away[room].argmin()]
    density = np.zeros(room.shape, np.float32)
    density[tuple(start)] = 1
    core, whole = (np.exp(rng.uniform(*np.log(range_))) / size**3 for range_ in (CORES, WHOLES))
    if kind == "infiltrating":
        core = np.inf
    for turn in range(3000):
        density = grown(density, walls, time)
        if turn % 5 == 0 and (
            np.count_nonzero(density > DENSE) > core or np.count_nonzero(density > SEEN) > whole
        ):
            break
    if step == 1:
        return density
    places = np.indices(grid.shape, np.float32) / step
    return np.asarray(ndimage.map_coordinates(density, places, order=1, mode="nearest"), np.float32)


def grown(density: Field, walls: Sequence[Field], time: float) -> Field:
    """Density (X, Y, Z) a short time later.

    Args:
        walls: along each axis, D between neighbouring voxels over the square of their distance.
        time: in units of 1 / r; below a sixth of 1 / the largest of the walls.
    """
    change = density * (1 - density)
    for axis, wall in enumerate(walls):
        flow = wall * np.diff(density, axis=axis)
        ahead, behind = _pads(axis)
        change += np.pad(flow, ahead) - np.pad(flow, behind)
    return np.asarray(density + np.float32(time) * change, np.float32)


def _coarse(rng: np.random.Generator, shape: tuple[int, ...]) -> Field:
    """Smooth noise of deviation about 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 4)
    return np.asarray(field / field.std(), np.float32)


def _between(ease: Field, axis: int) -> Field:
    """Harmonic means of neighbours along an axis: nothing passes a wall of 0."""
    one = np.moveaxis(ease, axis, 0)
    low, high = one[:-1], one[1:]
    return np.asarray(np.moveaxis(2 * low * high / np.maximum(low + high, 1e-6), 0, axis))


def _pads(axis: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Paddings that put flows between voxels onto the voxel before and the one behind."""
    before = [(0, 1) if one == axis else (0, 0) for one in range(3)]
    behind = [(1, 0) if one == axis else (0, 0) for one in range(3)]
    return before, behind
