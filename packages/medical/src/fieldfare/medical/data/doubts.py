# SPDX-License-Identifier: Apache-2.0
"""What is odd about a case whose files are all readable: images exchanged, doubled, mirrored, cut.

Each doubt is a warning, never a refusal. The numbers are from real gliomas and from phantoms of
several seeds; no clean case comes near a threshold.
"""

import itertools
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from ..volumes.images import canonical_affine, spacing_of
from .naming import MODALITIES
from .preparation import Prepared

LEAST_MM = 40.0
"""Of the brain along each axis: networks know whole brains, and tumours are smaller."""

SAME = 0.999
"""Correlation from which two images are one: T1 before and after contrast agent has up to 0.95."""

EXCHANGED = 0.15
"""By how much T1 may be more like T2 than like FLAIR: it is less like it by 0.6 and more."""

ENHANCING = (0.64, 6.0)
"""What stands out as brighter in T1ce over what does in T1, at least (0.78 in the worst clean case,
2.9 and more in real gliomas), and from how many deviations on it counts."""

MIRRORED = 1.2
"""Likeness of an image to the others when turned over against as it is (0.6 at most, mirrored ones
several times this)."""

CHANCE = 1.3
"""Times the information that images without any relation share by chance in so many voxels: so
much of it does not count."""

FIELD_MM = 24.0
"""What is coarser is the scanner's field, and does not count for that likeness."""

LEAST_VOXELS = 1000
"""Of a brain at 4 mm, for likeness to mean anything."""

_BINS = 16
_AXES = ("left and right", "front and back", "top and bottom")

Image = NDArray[np.float32]


def doubts(prepared: Prepared, missing: Collection[str] = ()) -> list[str]:
    """Sentences on what a user should check; empty for a case like those of BraTS.

    Args:
        prepared: the case.
        missing: modalities that it lacks.
    """
    there = [name for name in MODALITIES if name not in missing]
    images = {name: prepared.images[MODALITIES.index(name)] for name in there}
    found = [*_narrow(prepared)]
    if np.count_nonzero(np.any(list(images.values()), axis=0)) < LEAST_VOXELS:
        return found
    # The first fault that is found would make the next look likely.
    odd = _doubled(images) or _mirrored(prepared, there) or _exchanged(images, prepared.spacing)
    return [*found, *odd]


def _narrow(prepared: Prepared) -> list[str]:
    sizes = spacing_of(canonical_affine(prepared.affine, prepared.shape))
    sides = zip(prepared.box, sizes, strict=True)
    lengths = [(part.stop - part.start) * size for part, size in sides]
    axis = int(np.argmin(lengths))
    if lengths[axis] >= LEAST_MM:
        return []
    return [
        f"the images cover only {lengths[axis]:.3g} mm of the brain between {_AXES[axis]}; the "
        "networks know whole brains, and little is certain of a part"
    ]


def _doubled(images: dict[str, Image]) -> list[str]:
    told = []
    for (one, first), (two, second) in itertools.combinations(images.items(), 2):
        either = (first != 0) | (second != 0)
        if _correlation(first[either], second[either]) > SAME:
            told.append(f"{one} and {two} are one and the same image; check which file is which")
    return told


def _exchanged(images: dict[str, Image], spacing: tuple[float, float, float]) -> list[str]:
    told = []
    if {"t1", "t2", "flair"} <= set(images):
        t1, t2, flair = (images[name] for name in ("t1", "t2", "flair"))
        all_three = (t1 != 0) & (t2 != 0) & (flair != 0)
        # Fluid is dark in T1 and in FLAIR, where it is suppressed, and bright in T2.
        likeness = [_correlation(t1[all_three], other[all_three]) for other in (t2, flair)]
        if likeness[0] > likeness[1] + EXCHANGED:
            told.append(
                "t2 and flair are perhaps exchanged: fluid, dark in t1, is bright in what is given "
                "as flair; check which file is which"
            )
    if {"t1", "t1ce"} <= set(images):
        bright, dark, deviation = _standing_out(images["t1"], images["t1ce"], spacing)
        least, many = ENHANCING
        if dark > many * deviation and bright < least * dark:
            told.append(
                "t1 and t1ce are perhaps exchanged: what stands out is brighter in what is given "
                "as t1, where contrast agent would make it so in t1ce; check which file is which"
            )
    return told


def _standing_out(
    t1: Image, t1ce: Image, spacing: tuple[float, float, float]
) -> tuple[float, float, float]:
    """How far the most extreme voxels of T1ce less T1 lie above and below it, and its deviation.

    Details of 2 to 12 mm count: finer ones are noise, coarser ones the scanner's field.
    """
    both = (t1 != 0) & (t1ce != 0)
    inner = binary_erosion(both, iterations=2)
    if not inner.any():
        return 0.0, 0.0, 1.0
    difference = np.where(both, t1ce - t1, np.float32(0))
    fine, coarse = (_smooth(difference, both, size, spacing) for size in (2.0, 12.0))
    detail = (fine - coarse)[inner]
    low, first, third, high = np.percentile(detail, (0.01, 25, 75, 99.99))
    return float(high), float(-low), float((third - first) / 1.35)


def _smooth(
    image: Image, inside: NDArray[np.bool_], millimetres: float, spacing: tuple[float, ...]
) -> Image:
    """The mean of what lies inside, weighted by a Gaussian; the image is 0 elsewhere."""
    sigma = [millimetres / size for size in spacing]
    share = np.maximum(gaussian_filter(inside.astype(np.float32), sigma), np.float32(1e-3))
    found: Image = gaussian_filter(image, sigma) / share
    return found


def _mirrored(prepared: Prepared, there: list[str]) -> list[str]:
    """An image that lies over the others better when it is turned over."""
    steps = [max(1, round(4 / size)) for size in prepared.spacing]
    thin = prepared.images[(slice(None), *(slice(None, None, step) for step in steps))]
    sizes = tuple(size * step for size, step in zip(prepared.spacing, steps, strict=True))
    codes = {name: _codes(thin[MODALITIES.index(name)], sizes) for name in there}
    if len(there) < 2 or np.count_nonzero(codes[there[0]]) < LEAST_VOXELS:
        return []
    flips = [c for count in (1, 2, 3) for c in itertools.combinations(range(3), count)]
    best: tuple[float, str, tuple[int, ...]] = (MIRRORED, "", ())
    for name in there:
        others = [codes[other] for other in there if other != name]
        upright = sum(_information(codes[name], other) for other in others)
        for flip in flips:
            turned = np.flip(codes[name], flip)
            gain = sum(_information(turned, other) for other in others) / max(upright, 1e-9)
            best = max(best, (gain, name, flip))
    _, name, flip = best
    if not name:
        return []
    sides = " and ".join(_AXES[axis] for axis in flip)
    return [
        f"{name} is perhaps mirrored ({sides}): it lies over the others better when turned over; "
        "check the header it was saved with"
    ]


def _codes(image: Image, spacing: tuple[float, ...]) -> NDArray[np.int64]:
    """Which of _BINS equal parts of the brain's details a voxel is in, from 1; 0 outside."""
    codes = np.zeros(image.shape, np.int64)
    inside = image != 0
    if inside.any():
        detail = (image - _smooth(image, inside, FIELD_MM, spacing))[inside]
        edges = np.percentile(detail, np.linspace(0, 100, _BINS + 1)[1:-1])
        codes[inside] = 1 + np.searchsorted(edges, detail)
    return codes


def _information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Mutual information over the joint entropy, 0 for images that know nothing of each other.

    Where both are inside: the outlines of turned brains differ, which would pass for knowledge.

    Source: Studholme et al. 1999 (doi 10.1016/S0031-3203(98)00091-0), whose measure is 1 more; less
    the bias of few samples, Miller 1955, (bins - 1)^2 / (2 voxels).
    """
    side = _BINS + 1
    both = (a > 0) & (b > 0)
    counts = np.bincount(a[both] * side + b[both], minlength=side * side)
    voxels = max(1, int(counts.sum()))
    joint = counts.reshape(side, side) / voxels
    together = _entropy(joint)
    mutual = _entropy(joint.sum(0)) + _entropy(joint.sum(1)) - together
    chance = CHANCE * (_BINS - 1) ** 2 / (2 * voxels)
    return max(0.0, mutual - chance) / max(together, 1e-9)


def _entropy(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log(positive)).sum())


def _correlation(a: Image, b: Image) -> float:
    if not a.size or not a.std() or not b.std():
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
