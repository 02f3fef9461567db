# SPDX-License-Identifier: Apache-2.0
"""What is done to a network's answer, by names that can be combined: `hysteresis,fill-holes`."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fieldfare.common.errors import InputError

from ..data.regions import replace_small_et, scheme_labels

STEPS = ("none", "hysteresis", "fill-holes", "replace-small-et")

LOW, HIGH = 0.4, 0.7
"""Of hysteresis: probability from which a voxel counts, and that its part must reach somewhere."""

SMALL_ET_MM3 = 200.0
"""Of `replace-small-et`: 200 voxels of the BraTS grid, on any grid."""


def check_steps(names: str) -> tuple[str, ...]:
    """The steps of a list with commas.

    Raises:
        InputError: a name that is none of STEPS.
    """
    steps = tuple(name.strip() for name in names.split(","))
    if unknown := [name for name in steps if name not in STEPS]:
        raise InputError(f"--postprocess {unknown[0]}: is none of {', '.join(STEPS)}")
    return steps


def threshold_of(steps: Sequence[str], threshold: float) -> float:
    """From which probability a voxel belongs to a region: LOW of `threshold` with hysteresis.

    LOW and HIGH are for a threshold of one half and move with it.
    """
    return threshold * LOW / 0.5 if "hysteresis" in steps else threshold


def keep_certain(
    probabilities: NDArray[np.floating], steps: Sequence[str], threshold: float
) -> None:
    """With hysteresis: parts of a region that are nowhere certain become 0, in place.

    Args:
        probabilities: (3, x, y, z) of WT, TC, ET.

    Source: Canny 1986 (doi 10.1109/TPAMI.1986.4767851), two thresholds joined by connection.
    """
    if "hysteresis" not in steps:
        return
    certain = 1 - (1 - threshold) * (1 - HIGH) / 0.5
    for region in probabilities:
        parts, count = ndimage.label(region >= threshold_of(steps, threshold))
        highest = ndimage.maximum(region, parts, np.arange(1, count + 1))
        weak = np.concatenate([[False], np.asarray(highest) < certain])
        region[weak[parts]] = 0


def mend(
    labels: NDArray[np.uint8], steps: Sequence[str], scheme: str, voxel_mm3: float
) -> NDArray[np.uint8]:
    """The steps that work on labels (X, Y, Z), in the order of STEPS; thresholds in mm^3."""
    if "fill-holes" in steps:
        labels = fill_holes(labels, scheme)
    if "replace-small-et" in steps:
        labels = replace_small_et(labels, scheme, voxels=math.ceil(SMALL_ET_MM3 / voxel_mm3))
    return labels


def fill_holes(labels: NDArray[np.uint8], scheme: str) -> NDArray[np.uint8]:
    """What the tumour core encloses on all sides becomes core, what the tumour does oedema."""
    tissue = scheme_labels(scheme)
    box = ndimage.find_objects((labels > 0).astype(np.uint8))
    if not box:
        return labels
    filled = labels.copy()
    part = filled[box[0]]
    core = (part == tissue["NCR"]) | (part == tissue["ET"])
    whole = core | (part == tissue["ED"])
    part[ndimage.binary_fill_holes(whole) & ~whole & (part == 0)] = tissue["ED"]
    part[ndimage.binary_fill_holes(core) & ~core] = tissue["NCR"]
    return filled
