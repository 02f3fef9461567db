# SPDX-License-Identifier: Apache-2.0
"""A case as its pictures show it: axes as LPS, cropped to the brain, 256 greys."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.intensities import brain_mask
from ..data.naming import MODALITIES
from ..data.regions import to_regions
from ..evaluation.metrics import joint_box
from ..volumes.images import canonical_affine, spacing_of, to_canonical

MARGIN_MM = 4.0

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Scene:
    """A case as the pictures show it: axes as LPS, cropped to the brain.

    Attributes:
        images: (4, X, Y, Z) uint8, the range from the 0.5th to the 99.5th percentile of the voxels
            other than 0; zeros for a missing modality.
        labels: (X, Y, Z) in the scheme of the segmentation.
        regions: (3, X, Y, Z) bool, WT, TC, ET.
        probabilities: (3, X, Y, Z), where there are any.
        affine: (4, 4), of these arrays, to world mm.
    """

    images: NDArray[np.uint8]
    labels: Array
    regions: NDArray[np.bool_]
    probabilities: NDArray[np.floating] | None
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis, mm."""
        return spacing_of(self.affine)

    @cached_property
    def centre(self) -> tuple[int, int, int]:
        """On each axis the slice with most of the tumour; of the brain where there is none."""
        mask = self.regions[0] if self.regions[0].any() else self.images.any(axis=0)
        x, y, z = (
            int(mask.sum(axis=tuple(other for other in range(3) if other != axis)).argmax())
            for axis in range(3)
        )
        return x, y, z

    def world(self, index: Sequence[float]) -> NDArray[np.float64]:
        """World mm (RAS+) of a voxel."""
        affine = self.affine
        return np.asarray(affine[:3, :3] @ np.asarray(index, float) + affine[:3, 3], np.float64)


def make_scene(
    images: NDArray[np.float32],
    seg: Array,
    affine: NDArray[np.float64],
    scheme: str,
    probabilities: NDArray[np.floating] | None = None,
) -> Scene:
    """Turn and crop a case for the pictures.

    Args:
        images: (4, X, Y, Z) in the order of `cases.MODALITIES`, 0 outside the brain.
        seg: (X, Y, Z) labels in `scheme`.
        affine: (4, 4), voxel indices to world mm.
        scheme: a key of `regions.SCHEMES`.
        probabilities: (3, X, Y, Z) of WT, TC, ET.

    Raises:
        InputError: labels outside the scheme, or no such scheme.
        ValueError: shapes that do not belong together.
    """
    if images.shape != (len(MODALITIES), *seg.shape) or seg.ndim != 3:
        raise ValueError(f"images of shape {images.shape} with labels of {seg.shape}")
    regions = to_canonical(to_regions(seg, scheme), affine)
    turned, labels = to_canonical(images, affine), to_canonical(seg, affine)
    turned_affine = canonical_affine(affine, seg.shape)
    shown = brain_mask(turned) | regions[0]
    if not shown.any():
        shown = np.ones_like(shown)
    box = joint_box(shown, shown, math.ceil(MARGIN_MM / min(spacing_of(affine))))
    whole = (slice(None), *box)
    corner = [part.start for part in box]
    turned_affine = turned_affine.copy()
    turned_affine[:3, 3] += turned_affine[:3, :3] @ corner
    kept = None if probabilities is None else to_canonical(probabilities, affine)[whole]
    grey = np.stack([_to_grey(image) for image in turned[whole]])
    return Scene(grey, labels[box], regions[whole], kept, turned_affine)


def _to_grey(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0 .. 255 with 0 for what is not the head, so that backgrounds stay black."""
    inside = image != 0
    if not inside.any():
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(image[inside], (0.5, 99.5))
    scaled = (image - low) / max(high - low, 1e-6) * 255
    return np.where(inside, np.clip(scaled, 0, 255), 0).astype(np.uint8)
