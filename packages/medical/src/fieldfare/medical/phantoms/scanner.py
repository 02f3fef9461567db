# SPDX-License-Identifier: Apache-2.0
"""The faults of scanners and of preparation: slices, blur, bias, noise, ghosts, skull-stripping."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..data.naming import MODALITIES
from .anatomy import Anatomy
from .noise import Field, Grid


@dataclass(frozen=True)
class Slices:
    """How a modality was cut.

    Attributes:
        axis: 0, 1 or 2, across the slices.
        thickness: mm.
    """

    axis: int
    thickness: float

    @property
    def sigma(self) -> float:
        """Of the blur across the slices, mm."""
        return 0.35 * self.thickness


def scan(
    rng: np.random.Generator,
    anatomy: Anatomy,
    images: Field,
    slices: Mapping[str, Slices],
    blood: Field,
) -> Field:
    """Images (4, X, Y, Z) as they come from scanners and skull-stripping.

    Args:
        slices: of each modality, see `draw_slices`.
        blood: of the dural sinuses, (X, Y, Z), which stripping leaves on the brain or not.

    Returns:
        (4, X, Y, Z) float32, whole numbers as scanners store them, 0 outside the brain and only
        there. Their scales differ by orders of magnitude.
    """
    grid = anatomy.grid
    brain = _brain_mask(rng, anatomy)
    if rng.random() < 0.6:
        brain |= blood > 0.5
    rim = grid.blur(brain.astype(np.float32), 4.0) < 0.9
    quality = rng.uniform(0, 1)
    alike = rng.random() < 0.6
    result = np.empty_like(images)
    for name, image, out in zip(MODALITIES, images, result, strict=True):
        out[...] = _acquire(rng, grid, image, slices[name], quality)
        mask = brain
        if not alike:  # the masks of one case's modalities differ a little along the surface
            mask = brain & ~(rim & (grid.noise(rng, 20) < -rng.uniform(1.5, 3)))
        inside = out[mask]
        typical = float(np.median(inside)) if inside.size else 1.0
        # Scaled by what is typical so that no scale is so small that rounding shows.
        scale = np.exp(rng.uniform(np.log(100), np.log(3000))) / max(typical, 1e-3)
        np.rint(out * np.float32(scale), out=out)
        np.maximum(out, 1, out=out)
        out *= mask
    return result


def draw_slices(rng: np.random.Generator) -> Mapping[str, Slices]:
    """All modalities alike, or volumes of T1 beside thick slices of the others."""
    thin, thick = rng.uniform(1, 1.5), rng.uniform(2, 6.5)
    kind = rng.random()
    found = {}
    for name in MODALITIES:
        volumetric = kind < 0.3 or (kind < 0.55 and name in ("t1", "t1ce"))
        axis = 2 if rng.random() < 0.85 else int(rng.integers(3))
        found[name] = Slices(axis, thin if volumetric else thick)
    return found


def _acquire(
    rng: np.random.Generator, grid: Grid, image: Field, slices: Slices, quality: float
) -> Field:
    spacing = grid.spacing
    sigma = np.full(3, rng.uniform(0.2, 1.0))
    sigma[slices.axis] = max(sigma[slices.axis], slices.sigma)
    image = ndimage.gaussian_filter(image, sigma / spacing, truncate=3)
    bias = rng.uniform(0, 0.2) * grid.noise(rng, rng.uniform(50, 150))
    image = image * np.exp(np.clip(bias, -0.7, 0.7))
    level = rng.uniform(0.0, 0.015) + 0.035 * quality * rng.random()
    image = _noisy(rng, image, level)
    if rng.random() < 0.15:
        axis = int(rng.integers(2))
        image = image + rng.uniform(0.01, 0.05) * np.roll(image, grid.shape[axis] // 2, axis)
    step = max(1, round(slices.thickness / spacing))
    if step > 1:
        image = _resliced(image, slices.axis, step, int(rng.integers(step)))
    # Registered to the others to about half a millimetre.
    image = ndimage.shift(image, rng.uniform(-0.8, 0.8, 3) / spacing, order=1, mode="nearest")
    image = _noisy(rng, image, level * rng.uniform(0, 0.5))
    return np.asarray(np.maximum(image, 0) ** np.float32(np.exp(rng.normal(0, 0.13))), np.float32)


def _noisy(rng: np.random.Generator, image: Field, level: float) -> Field:
    """Rician: the magnitude of a signal with normal noise in both of its parts."""
    real, imaginary = (rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    share = np.float32(level)
    return np.asarray(np.sqrt((image + share * real) ** 2 + (share * imaginary) ** 2))


def _resliced(image: Field, axis: int, step: int, first: int) -> Field:
    """Every `step`-th slice kept, the others put back by linear interpolation."""
    length = image.shape[axis]
    known = np.arange(first, length, step)
    if len(known) < 2:
        return image
    place = np.clip((np.arange(length) - first) / step, 0, len(known) - 1)
    low = np.floor(place).astype(int).clip(0, len(known) - 2)
    share = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    kept = image.take(known, axis)
    return np.asarray(kept.take(low, axis) * (1 - share) + kept.take(low + 1, axis) * share)


def _brain_mask(rng: np.random.Generator, anatomy: Anatomy) -> NDArray[np.bool_]:
    """What a skull-stripping tool leaves: a bit too much here, too little there."""
    grid = anatomy.grid
    width = 3.0
    # The blurred brain falls by about 0.13 a millimetre where its edge was.
    level = 0.5 + rng.normal(0, 0.13) + rng.uniform(0, 0.12) * grid.noise(rng, 25)
    mask: NDArray[np.bool_] = grid.blur(anatomy.brain, width) > np.clip(level, 0.12, 0.85)
    if rng.random() < 0.5:  # sulci that open to the outside are cut away
        outer = grid.blur(anatomy.brain, 4.0) < 0.93
        wet = anatomy["fluid"] > rng.uniform(0.5, 0.9)
        mask = _largest(mask & ~(outer & (wet | (anatomy.brain < 0.5))))
    axes = [values - values.mean() for values in grid.axes()]
    x, y, z = (a.reshape([-1 if i == axis else 1 for i in range(3)]) for axis, a in enumerate(axes))
    height = z + np.float32(rng.normal(0, 0.15)) * y + np.float32(rng.normal(0, 0.05)) * x
    low, high = float(axes[2][0]), float(axes[2][-1])
    if rng.random() < 0.3:
        mask &= height > low + 14 + rng.uniform(0, 30)
    if rng.random() < 0.1:
        mask &= height < high - 14 - rng.uniform(0, 12)
    if rng.random() < 0.3:
        mask = mask | _left_over(rng, grid, mask)
    return mask


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, count = ndimage.label(mask)
    return np.asarray(parts == 1 + np.bincount(parts.ravel())[1:].argmax()) if count else mask


def _left_over(rng: np.random.Generator, grid: Grid, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Crumbs of eye, muscle or skull that no longer touch the brain."""
    points = grid.points()
    crumbs = np.zeros(grid.shape, bool)
    lengths = np.array(grid.shape) * grid.spacing
    for _ in range(int(rng.integers(1, 4))):
        share = np.array([rng.uniform(0.2, 0.8), rng.uniform(0, 0.5), rng.uniform(0, 0.35)])
        centre = ((share * lengths) + np.array(grid.first) * grid.spacing).astype(np.float32)
        distance = ((points - centre.reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
        crumbs |= distance < rng.uniform(2, 7) ** 2
    return crumbs & ~mask
