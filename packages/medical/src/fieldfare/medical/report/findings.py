# SPDX-License-Identifier: Apache-2.0
"""What a segmentation says in numbers: volumes, places, components, how sure the network was."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..data.regions import REGIONS, SCHEMES, to_regions
from ..evaluation.metrics import joint_box
from ..volumes.images import spacing_of

DOUBT = (0.25, 0.75)
"""Probabilities between which a voxel counts as uncertain."""

SMALL_ML = 0.05
"""Components below this are left out of the BraTS scores by lesion (50 mm^3)."""

MOST_LESIONS = 10

Array = NDArray[Any]
Point = tuple[float, float, float]

_NEIGHBOURS_26 = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class RegionFindings:
    """One region.

    Attributes:
        region: WT, TC or ET.
        ml: its volume.
        components: number of its 26-connected components.
        small: how many of them are under SMALL_ML.
        largest_ml: volume of the largest, 0 without one.
        centroid: mean of its voxels in world mm (RAS+); None where it is empty.
        range_ml: its volume at the probabilities DOUBT[1] and DOUBT[0]; None without them.
        entropy: mean binary entropy, bits (0 .. 1), where its probability is over DOUBT[0].
        uncertain: of the same voxels the share below DOUBT[1].
    """

    region: str
    ml: float
    components: int
    small: int
    largest_ml: float
    centroid: Point | None
    range_ml: tuple[float, float] | None = None
    entropy: float | None = None
    uncertain: float | None = None


@dataclass(frozen=True)
class Lesion:
    """A component of the whole tumour: volumes in ml, centroid in world mm (RAS+)."""

    ml: dict[str, float]
    centroid: Point


@dataclass(frozen=True)
class Findings:
    """All numbers of a case.

    Attributes:
        regions: WT, TC, ET.
        labels_ml: volume of each label of the scheme by its name, "ED (2)".
        lesions: the MOST_LESIONS largest components of WT, falling in size.
    """

    regions: tuple[RegionFindings, ...]
    labels_ml: dict[str, float]
    lesions: tuple[Lesion, ...]


def measure(
    seg: Array,
    affine: NDArray[np.float64],
    scheme: str,
    probabilities: NDArray[np.floating] | None = None,
) -> Findings:
    """Count what a segmentation holds.

    Args:
        seg: (X, Y, Z) labels in `scheme`.
        affine: (4, 4), voxel indices to world mm.
        scheme: a key of `regions.SCHEMES`.
        probabilities: (3, X, Y, Z) of WT, TC, ET in [0, 1], for what is said of certainty.

    Raises:
        InputError: labels outside the scheme, or no such scheme.
    """
    voxel_ml = math.prod(spacing_of(affine)) / 1000
    regions = to_regions(seg, scheme)
    box = joint_box(regions[0], regions[0])
    corner = np.array([part.start for part in box], float)
    cropped = regions[(slice(None), *box)]
    found = []
    for index, region in enumerate(REGIONS):
        mask = cropped[index]
        sizes = _component_sizes(mask) * voxel_ml
        certainty = {} if probabilities is None else _certainty(probabilities[index], voxel_ml)
        found.append(
            RegionFindings(
                region=region,
                ml=float(np.count_nonzero(mask) * voxel_ml),
                components=len(sizes),
                small=int(np.count_nonzero(sizes < SMALL_ML)),
                largest_ml=float(sizes.max(initial=0)),
                centroid=_centroid(mask, corner, affine) if mask.any() else None,
                **certainty,
            )
        )
    labels_ml = {
        f"{name} ({label})": float(np.count_nonzero(seg == label) * voxel_ml)
        for label, name in SCHEMES[scheme].items()
    }
    return Findings(tuple(found), labels_ml, _lesions(cropped, corner, affine, voxel_ml))


def binary_entropy(probability: NDArray[np.floating]) -> NDArray[np.float32]:
    """Entropy of yes against no in bits, 0 .. 1, of the same shape."""
    p = np.clip(probability.astype(np.float32), 1e-7, 1 - 1e-7)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def in_words(point: Point) -> str:
    """World coordinates (RAS+) in whole mm: -81, 155, 89."""
    return ", ".join(f"{value:.0f}".replace("-", "\N{MINUS SIGN}") for value in point)


def _component_sizes(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    labelled, count = ndimage.label(mask, _NEIGHBOURS_26)
    return np.bincount(labelled.ravel(), minlength=count + 1)[1:]


def _centroid(mask: NDArray[np.bool_], corner: Array, affine: NDArray[np.float64]) -> Point:
    mean = np.argwhere(mask).mean(axis=0) + corner
    x, y, z = (float(value) for value in affine[:3, :3] @ mean + affine[:3, 3])
    return x, y, z


def _certainty(probability: NDArray[np.floating], voxel_ml: float) -> dict[str, Any]:
    low, high = DOUBT
    possible = probability[probability > low]
    sure = np.count_nonzero(possible >= high)
    range_ml = (float(sure * voxel_ml), float(possible.size * voxel_ml))
    if not possible.size:
        return {"range_ml": range_ml}
    return {
        "range_ml": range_ml,
        "entropy": float(binary_entropy(possible).mean(dtype=np.float64)),
        "uncertain": 1 - sure / possible.size,
    }


def _lesions(
    regions: NDArray[np.bool_], corner: Array, affine: NDArray[np.float64], voxel_ml: float
) -> tuple[Lesion, ...]:
    labelled, count = ndimage.label(regions[0], _NEIGHBOURS_26)
    if not count:
        return ()
    counts = [
        np.bincount(labelled[region], minlength=count + 1)[1:] * voxel_ml for region in regions
    ]
    boxes = ndimage.find_objects(labelled)
    lesions = []
    for index in np.argsort(-counts[0], kind="stable")[:MOST_LESIONS]:
        box = boxes[index]
        start = corner + [part.start for part in box]
        ml = {name: float(sizes[index]) for name, sizes in zip(REGIONS, counts, strict=True)}
        lesions.append(Lesion(ml, _centroid(labelled[box] == index + 1, start, affine)))
    return tuple(lesions)
