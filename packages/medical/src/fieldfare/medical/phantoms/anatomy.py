# SPDX-License-Identifier: Apache-2.0
"""Healthy brains: the tissue maps of the MNI152 atlas, moved and bent at random.

The maps are those that nilearn carries (Fonov et al. 2011, doi 10.1016/j.neuroimage.2010.07.033);
nothing is fetched.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fieldfare.common.errors import InputError

from .noise import Field, Grid
from .sinuses import near_sinus

EXTENT = (240.0, 240.0, 155.0)
"""Mm of the field of view, that of BraTS' SRI24 grid."""

CENTRE = (118.0, 130.0, 76.0)
"""Where the brain's middle lies in it, mm from its first voxel."""

MARGIN = 14.0
"""Mm around the brain that are drawn, for what bending moves and skull-stripping leaves."""

DEEP = 18.0
"""Mm from the brain's surface beyond which grey matter counts as deep, fluid as ventricle."""

SHARES = ("grey", "white", "fluid")
DEPTHS = ("deep", "sinus", "detail")


@dataclass(frozen=True)
class Atlas:
    """Maps at 1 mm, axes LPS.

    Attributes:
        maps: (6, X, Y, Z): fractions of grey and white matter and fluid; whether a voxel lies
            deep and how near a dural sinus is; by how much the T1 template differs from what
            its tissues explain (nuclei, myelin), about -1 to 1.
        middle: of the brain's box, voxels.
        size: of that box, voxels.
        white: indices (N, 3) of voxels in white matter, where lesions begin.
    """

    maps: Field
    middle: NDArray[np.float64]
    size: NDArray[np.float64]
    white: NDArray[np.int64]


@functools.cache
def load_atlas() -> Atlas:
    """The atlas; read once a process.

    Raises:
        InputError: nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError:
        raise InputError(
            "phantoms need the atlas that nilearn carries; pip install 'fieldfare-medical[phantom]'"
        ) from None
    loaded = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_brain_mask,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_template,
        )
    ]
    mask, grey, white, template = (
        np.asarray(image.dataobj, np.float32)[::-1, ::-1]  # RAS to LPS
        for image in loaded
    )
    # Only the brain's box is kept; a third of the atlas is air.
    box = ndimage.find_objects((mask > 0.5).astype(np.uint8))[0]
    brain, grey, white, template = mask[box] > 0.5, grey[box], white[box], template[box]
    brain, grey, white, template = (np.pad(one, 1) for one in (brain, grey, white, template))
    total = np.maximum(grey + white, 1)
    grey, white = grey / total * brain, white / total * brain
    fluid = np.clip(brain - grey - white, 0, 1)
    depth = ndimage.distance_transform_edt(brain)
    first = loaded[0].affine[:3, 3]
    x, y, z = (
        start + np.arange(part.start - 1, part.stop + 1)
        for start, part in zip(first, box, strict=True)
    )
    # The first two axes were turned over.
    turned = 2 * first[:2] + np.array(mask.shape[:2]) - 1
    places = np.stack(np.meshgrid(turned[0] - x, turned[1] - y, z, indexing="ij"), axis=-1)
    inside = np.argwhere(brain)
    low, high = inside.min(axis=0), inside.max(axis=0)
    middle = (low + high) / 2
    sinus = near_sinus(places)
    maps = [grey, white, fluid, depth > DEEP, sinus, _detail(template, brain, grey, white, fluid)]
    begin = np.argwhere(ndimage.uniform_filter(white, 5) > 0.6)
    return Atlas(np.stack(maps).astype(np.float32), middle, high - low + 1.0, begin)


def _detail(
    template: Field, brain: NDArray[np.bool_], grey: Field, white: Field, fluid: Field
) -> Field:
    parts = np.stack([one[brain] for one in (grey, white, fluid)], axis=1)
    values = template[brain]
    means = np.linalg.lstsq(parts, values, rcond=None)[0]
    detail = np.zeros(brain.shape, np.float32)
    detail[brain] = (values - parts @ means) / max(means[1] - means[2], 1e-6)
    return np.clip(detail, -1, 1)


@dataclass
class Anatomy:
    """One healthy brain.

    Attributes:
        grid: where it lies.
        tissues: (3, X, Y, Z) fractions of grey matter, white matter and fluid; their sum is the
            brain.
        deep: (X, Y, Z) in [0, 1], 1 far from the surface.
        sinus: (X, Y, Z) in [0, 1], how near a dural sinus is, see `near_sinus`.
        detail: (X, Y, Z), contrast within tissues.
    """

    grid: Grid
    tissues: Field
    deep: Field
    sinus: Field
    detail: Field

    @property
    def brain(self) -> Field:
        """Fraction of brain, (X, Y, Z)."""
        return np.asarray(self.tissues.sum(axis=0), np.float32)

    def __getitem__(self, name: str) -> Field:
        """One tissue, (X, Y, Z)."""
        share: Field = self.tissues[SHARES.index(name)]
        return share


@dataclass(frozen=True)
class Push:
    """A swelling that pushes the tissue around it outwards.

    Attributes:
        centre: mm from the grid's first voxel.
        radius: mm; the tissue there is moved most.
        shift: mm that it is moved; less than the radius.
    """

    centre: NDArray[np.float64]
    radius: float
    shift: float


class Pose:
    """A random affine placement of the atlas: size, shape, turn, place, mirror.

    The atlas is larger than a usual brain: 1.9 l, where BraTS' are 1.1 to 1.8.
    """

    def __init__(self, rng: np.random.Generator, atlas: Atlas) -> None:
        turn = np.radians(rng.normal(0, (7, 4, 4)))
        matrix = _rotation(turn) @ np.diag(np.exp(rng.normal(0, 0.05, 3)) * rng.uniform(0.83, 0.98))
        matrix += rng.normal(0, 0.02, (3, 3))
        if rng.random() < 0.5:
            matrix[:, 0] *= -1
        self._inverse = np.linalg.inv(matrix)
        self._matrix, self._middle = matrix, atlas.middle
        self._half = np.abs(matrix) @ (atlas.size / 2)
        self._centre = np.array(CENTRE) + rng.normal(0, (2, 4, 4))

    def to_phantom(self, voxel: NDArray[np.int64]) -> NDArray[np.float64]:
        """Where a voxel of the atlas comes to lie, mm from the field of view's first voxel."""
        return np.asarray(self._matrix @ (voxel - self._middle) + self._centre)

    def to_atlas(self, points: Field) -> Field:
        """(3, ...) mm to voxels of the atlas."""
        inverse = self._inverse.astype(np.float32)
        offset = (self._middle - self._inverse @ self._centre).astype(np.float32)
        return np.tensordot(inverse, points, 1) + offset.reshape(3, 1, 1, 1)

    def grid(self, spacing: float) -> Grid:
        """The box that holds the brain and a margin."""
        full = np.array(grid_shape(spacing))
        # Turning grows the box of a box, not so that of a brain: nine tenths hold it.
        reach = 0.9 * self._half + MARGIN
        low = np.clip(np.floor((self._centre - reach) / spacing), 0, full - 8).astype(int)
        high = np.clip(np.ceil((self._centre + reach) / spacing), low + 8, full).astype(int)
        first, shape = (tuple(int(v) for v in values) for values in (low, high - low))
        return Grid(first, shape, spacing)  # type: ignore[arg-type]


def grid_shape(spacing: float) -> tuple[int, int, int]:
    """Voxels of the field of view along each axis."""
    x, y, z = (max(8, round(length / spacing)) for length in EXTENT)
    return x, y, z


def make_anatomy(rng: np.random.Generator, pose: Pose, grid: Grid, pushes: list[Push]) -> Anatomy:
    """A brain bent at random, with the mass effect of its lesions."""
    places = pose.to_atlas(bent_points(rng, grid, pushes))
    maps = [
        ndimage.map_coordinates(one, places, order=1, mode="constant", prefilter=False)
        for one in load_atlas().maps
    ]
    tissues = np.stack(maps[: len(SHARES)])
    brain = tissues.sum(axis=0)
    return Anatomy(grid, _shifted(rng, grid, tissues, brain), *maps[len(SHARES) :])


def bent_points(rng: np.random.Generator, grid: Grid, pushes: list[Push]) -> Field:
    """Where each voxel of a bent brain comes from in the straight one: (3, X, Y, Z), mm."""
    points = grid.points()
    move = np.zeros_like(points)
    for push in pushes:
        away = points - push.centre.astype(np.float32).reshape(3, 1, 1, 1)
        distance = np.sqrt((away**2).sum(axis=0)) + 1e-3
        # Moved most at the rim; decays over twice the radius; never folds since shift < radius.
        share = np.where(
            distance < push.radius,
            distance / push.radius,
            np.exp(-(distance - push.radius) / (1.5 * push.radius)),
        )
        move -= away / distance * (push.shift * share)
    strength = rng.uniform(0.5, 1.3)
    for scale, size in ((60.0, 3.0), (25.0, 1.3)):
        for axis in range(3):
            move[axis] += size * strength * grid.noise(rng, scale)
    return points + move


def _shifted(rng: np.random.Generator, grid: Grid, tissues: Field, brain: Field) -> Field:
    """Sharper or softer borders, thicker or thinner cortex, wider or narrower sulci, atrophy.

    The atlas is a mean of many brains with soft borders. A power of the fractions sharpens them and
    a random factor, global and local, moves the borders between tissues.
    """
    power = rng.uniform(1.0, 3.5)
    gains = (0.0, rng.normal(0, 0.25), rng.normal(0.2, 0.7))
    fields = (0.35, 0.3, 0.8)
    shifted = np.empty_like(tissues)
    for tissue, gain, size, out in zip(tissues, gains, fields, shifted, strict=True):
        np.power(tissue, power, out=out)
        out *= np.exp(gain + size * grid.noise(rng, rng.uniform(6, 18)))
    shifted *= brain / np.maximum(shifted.sum(axis=0), 1e-6)
    return shifted


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """About x, then y, then z; radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, two = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
