# SPDX-License-Identifier: Apache-2.0
"""How well a mask agrees with the truth: Dice, 95th-percentile Hausdorff distance, surface Dice.

HD95 has at least four definitions that give 0 to 10 mm for one and the same pair of masks, so that
a number without its definition says nothing: `DEFINITIONS` has a line for each one used here.
"""

import enum
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

HausdorffDefinition = Literal["max", "pooled"]

BRATS_WORST_MM = 373.0
"""HD95 of an empty mask against a full one: the diagonal of the BraTS grid, 240x240x155 mm."""


class EmptyPolicy(enum.StrEnum):
    """What scores are worth where a mask is empty.

    NAN: what has no value is NaN, and left out of means. Both empty: all NaN. One empty: Dice and
    NSD are 0, HD95 is NaN.
    BRATS: the challenge's own rule. Both empty: Dice and NSD 1, HD95 0. One empty: Dice and NSD 0,
    HD95 373 mm.
    """

    NAN = "nan"
    BRATS = "brats"


DEFINITIONS = {
    "dice": "2 |A and B| / (|A| + |B|) over voxels",
    "hd95:max": (
        "the larger of the two directed 95th percentiles (linear) of the distances, mm, between "
        "surface voxels: those with a background voxel among their 6 neighbours, the outside of "
        "the image being background (as MONAI)"
    ),
    "hd95:pooled": (
        "the 95th percentile (linear) of both directed sets of surface distances in one, mm; "
        "surface as in hd95:max (as MedPy, panoptica and brats-evaluation)"
    ),
    "nsd": (
        "surface-voxel Dice: share of the surface voxels of both masks at most `tolerance_mm` away "
        "from the other surface, each voxel counting once (as MONAI; not weighted by area as in "
        "arXiv 1809.04430)"
    ),
    "empty:nan": "both masks empty: all NaN; one empty: Dice and NSD 0, HD95 NaN",
    "empty:brats": "both masks empty: Dice and NSD 1, HD95 0; one empty: Dice and NSD 0, HD95 373",
}
"""One line for each measure and each choice, as reports print them."""


class Scores(NamedTuple):
    """One mask against one truth: Dice and NSD in 0 .. 1, HD95 in mm; NaN as the policy says."""

    dice: float
    hd95_mm: float
    nsd: float


def dice(a: ArrayLike, b: ArrayLike, *, empty: EmptyPolicy = EmptyPolicy.NAN) -> float:
    """Dice coefficient of two masks, 0 .. 1.

    Args:
        a: (X, Y, Z) bool.
        b: the same shape.
        empty: the value for two empty masks, NaN or 1.

    Raises:
        ValueError: shapes that differ.

    Source: Dice 1945 (doi 10.2307/1932409).
    """
    first, second = _masks(a, b)
    total = np.count_nonzero(first) + np.count_nonzero(second)
    if total == 0:
        return of_empty(empty, both=True).dice
    return float(2 * np.count_nonzero(first & second) / total)


def surface_distances(
    a: ArrayLike, b: ArrayLike, spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances between the surfaces of two masks, in mm, both ways.

    A surface is the mask less its 6-connected erosion: the outermost layer of its own voxels. The
    outside of the image counts as background.

    Args:
        a: (X, Y, Z) bool.
        b: the same shape.
        spacing: size of a voxel along each axis, mm.

    Returns:
        For each surface voxel of a the distance to the nearest of b, and the other way round:
        (N,) and (M,) float64. To an empty mask it is infinite.

    Raises:
        ValueError: shapes that differ, or a spacing that is not three positive numbers.
    """
    first, second = _masks(a, b)
    sampling = _sampling(spacing)
    box = joint_box(first, second)
    ours, theirs = _surface(first[box]), _surface(second[box])
    return _directed(ours, theirs, sampling), _directed(theirs, ours, sampling)


def hausdorff95(
    a: ArrayLike,
    b: ArrayLike,
    spacing: Sequence[float],
    definition: HausdorffDefinition = "max",
    *,
    empty: EmptyPolicy = EmptyPolicy.NAN,
) -> float:
    """95th percentile of the Hausdorff distance, in mm, by one of two definitions.

    Args:
        a: (X, Y, Z) bool.
        b: the same shape.
        spacing: size of a voxel along each axis, mm.
        definition: "max", the larger of the two directed percentiles, or "pooled", the percentile
            of both sets of distances in one, which hides an island that is small against the
            surfaces together.
        empty: the value where a mask is empty.

    Raises:
        ValueError: shapes that differ, a bad spacing, or an unknown definition.

    Source: Huttenlocher et al. 1993 (doi 10.1109/34.232073) for the distance and its quantiles.
    """
    return score(a, b, spacing, hd=definition, empty=empty).hd95_mm


def normalised_surface_dice(
    a: ArrayLike,
    b: ArrayLike,
    spacing: Sequence[float],
    tolerance_mm: float = 1.0,
    *,
    empty: EmptyPolicy = EmptyPolicy.NAN,
) -> float:
    """Surface-voxel Dice: the share of both surfaces within a tolerance of the other, 0 .. 1.

    Each surface voxel counts once, whatever its area. On anisotropic grids this differs from the
    area-weighted measure of the source; `DEFINITIONS["nsd"]` says so.

    Args:
        a: (X, Y, Z) bool.
        b: the same shape.
        spacing: size of a voxel along each axis, mm.
        tolerance_mm: largest distance that still agrees; it counts as agreeing itself.
        empty: the value for two empty masks; against one empty mask it is 0.

    Raises:
        ValueError: shapes that differ, a bad spacing, or a negative tolerance.

    Source: Nikolov et al. 2018 (arXiv 1809.04430).
    """
    return score(a, b, spacing, tolerance_mm=tolerance_mm, empty=empty).nsd


def score(
    a: ArrayLike,
    b: ArrayLike,
    spacing: Sequence[float],
    *,
    hd: HausdorffDefinition = "max",
    tolerance_mm: float = 1.0,
    empty: EmptyPolicy = EmptyPolicy.NAN,
) -> Scores:
    """Dice, HD95 and NSD of two masks at the cost of one; arguments as of the single functions."""
    if hd not in ("max", "pooled"):
        raise ValueError(f"HD95 is defined as max or pooled, not {hd!r}")
    if not tolerance_mm >= 0:
        raise ValueError(f"the tolerance is {tolerance_mm} mm; give 0 or more")
    first, second = _masks(a, b)
    box = joint_box(first, second)
    first, second = first[box], second[box]
    if not first.any() or not second.any():
        return of_empty(empty, both=not (first.any() or second.any()))
    there, back = surface_distances(first, second, spacing)
    if hd == "max":
        hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    else:
        hd95 = np.percentile(np.concatenate([there, back]), 95)
    near = np.count_nonzero(there <= tolerance_mm) + np.count_nonzero(back <= tolerance_mm)
    return Scores(dice(first, second), float(hd95), float(near / (there.size + back.size)))


def joint_box(a: NDArray[np.bool_], b: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """The smallest box that holds both masks, with a margin in voxels where the image has one.

    Two empty masks have an empty box.
    """
    either = a | b
    box = []
    for axis, length in enumerate(either.shape):
        others = tuple(other for other in range(either.ndim) if other != axis)
        found = np.flatnonzero(either.any(axis=others))
        if not found.size:
            return (slice(0, 0),) * either.ndim
        box.append(slice(max(0, found[0] - margin), min(length, found[-1] + 1 + margin)))
    return tuple(box)


def of_empty(policy: EmptyPolicy, *, both: bool) -> Scores:
    """The scores of two empty masks, or of one empty mask against a full one."""
    if EmptyPolicy(policy) is EmptyPolicy.NAN:
        return Scores(np.nan, np.nan, np.nan) if both else Scores(0.0, np.nan, 0.0)
    return Scores(1.0, 0.0, 1.0) if both else Scores(0.0, BRATS_WORST_MM, 0.0)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # The outside of the box is background to binary_erosion, so that cropping changes nothing.
    return mask ^ ndimage.binary_erosion(mask) if mask.size else mask


def _directed(
    source: NDArray[np.bool_], target: NDArray[np.bool_], sampling: list[float]
) -> NDArray[np.float64]:
    if not target.any():  # the transform of an array without zeros would be arbitrary
        return np.full(np.count_nonzero(source), np.inf)
    distances: NDArray[np.float64] = ndimage.distance_transform_edt(~target, sampling=sampling)
    return distances[source]


def _masks(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"masks of shapes {first.shape} and {second.shape} cannot be compared")
    return first, second


def _sampling(spacing: Sequence[float]) -> list[float]:
    sampling = [float(size) for size in spacing]
    if len(sampling) != 3 or not all(size > 0 and np.isfinite(size) for size in sampling):
        raise ValueError(f"spacing is {spacing}; give three positive numbers, mm")
    return sampling
