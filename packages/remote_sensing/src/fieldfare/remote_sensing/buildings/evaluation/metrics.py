# SPDX-License-Identifier: Apache-2.0
"""Pixel metrics of building masks, as counts that add up over tiles and blocks.

All functions take arrays (h, w). A sum of counts equals the counts of the whole, so numbers are
pooled over pixels, never averaged over tiles.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage

Inner = tuple[slice, slice]
WHOLE: Inner = (slice(None), slice(None))


def ratio(part: float, whole: float) -> float:
    """part / whole; nan where there is nothing to divide by."""
    return part / whole if whole else math.nan


@dataclass(frozen=True)
class Confusion:
    """Pixels counted by truth and prediction; each measure is nan where it divides by 0.

    Attributes:
        tp, fp, fn, tn: building found, background called building, building missed, background.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def building_iou(self) -> float:
        """TP / (TP + FP + FN)."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def background_iou(self) -> float:
        """TN / (TN + FP + FN)."""
        return ratio(self.tn, self.tn + self.fp + self.fn)

    @property
    def mean_iou(self) -> float:
        """Mean of building_iou and background_iou."""
        return (self.building_iou + self.background_iou) / 2

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float:
        """(TP + TN) / all."""
        return ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)


def confusion(
    predicted: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> Confusion:
    """Count pixels; all arrays (h, w) bool, pixels that are not valid do not count."""
    if valid is not None:
        predicted, truth = predicted[valid], truth[valid]
    tp = int(np.count_nonzero(predicted & truth))
    found, wanted = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    return Confusion(tp, found - tp, wanted - tp, predicted.size - found - wanted + tp)


def _spread(image: np.ndarray, reach: int) -> np.ndarray:
    """Highest value within the square that reaches so many pixels each way."""
    if reach == 0:
        return image
    values = image.view(np.uint8)
    highest: np.ndarray = ndimage.maximum_filter(values, 2 * reach + 1, mode="constant")
    return highest.view(image.dtype)


@dataclass(frozen=True)
class Relaxed:
    """Counts of the relaxed measures.

    Attributes:
        near_truth, predicted: predicted pixels near a true one, and all of them.
        near_predicted, truth: true pixels near a predicted one, and all of them.
    """

    near_truth: int
    predicted: int
    near_predicted: int
    truth: int

    def __add__(self, other: "Relaxed") -> "Relaxed":
        return Relaxed(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def precision(self) -> float:
        """Share of the predicted pixels near a true one; nan where nothing is predicted."""
        return ratio(self.near_truth, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the true pixels near a predicted one; nan where there is no building."""
        return ratio(self.near_predicted, self.truth)


def relaxed(predicted: np.ndarray, truth: np.ndarray, rho: int, inner: Inner = WHOLE) -> Relaxed:
    """Count predicted pixels near true ones, and true near predicted, (h, w) bool.

    Args:
        rho: how far is near, in pixels along rows and columns (a square, as in the published
            curves of HF-FCN, Saito and Mnih, whose numbers a disc does not give).
        inner: the part that is counted; the rest is margin of at least rho pixels.

    Source: V. Mnih, Machine Learning for Aerial Image Labeling, PhD thesis, Toronto 2013.
    """
    near_truth, near_predicted = _spread(truth, rho)[inner], _spread(predicted, rho)[inner]
    predicted, truth = predicted[inner], truth[inner]
    return Relaxed(
        int(np.count_nonzero(predicted & near_truth)),
        int(np.count_nonzero(predicted)),
        int(np.count_nonzero(truth & near_predicted)),
        int(np.count_nonzero(truth)),
    )


@dataclass(frozen=True)
class Overlap:
    """Pixels in both of two regions, and in either."""

    intersection: int
    union: int

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(self.intersection + other.intersection, self.union + other.union)

    @property
    def iou(self) -> float:
        """Intersection over union; nan where both are empty."""
        return ratio(self.intersection, self.union)


def boundary_iou(
    predicted: np.ndarray, truth: np.ndarray, distance_px: int, inner: Inner = WHOLE
) -> Overlap:
    """Compare the bands inside the outlines of two masks, (h, w) bool.

    Args:
        distance_px: width of the bands; a pixel belongs to one if the square that reaches so far
            each way leaves its mask. Outside the image is background.
        inner: the part that is counted; the rest is margin of at least distance_px pixels.

    Source: Cheng et al. 2021, arXiv 2103.16562. Its width of 2 % of the diagonal is meant for
    photographs; on scenes it would cover whole houses.
    """
    bands = []
    for mask in (predicted, truth):
        core = ndimage.minimum_filter(mask.view(np.uint8), 2 * distance_px + 1, mode="constant")
        bands.append(mask[inner] & (core[inner] == 0))
    return Overlap(
        int(np.count_nonzero(bands[0] & bands[1])), int(np.count_nonzero(bands[0] | bands[1]))
    )


@dataclass(frozen=True, eq=False)
class Curve:
    """Counts for precision and recall at any threshold, each (256,) int64 by uint8 level.

    Attributes:
        near_truth: levels of the pixels near a true one (relaxed true positives).
        predicted: levels of all pixels.
        near_predicted: highest level near each true pixel.
    """

    near_truth: np.ndarray
    predicted: np.ndarray
    near_predicted: np.ndarray

    def __add__(self, other: "Curve") -> "Curve":
        return Curve(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def precision_recall(self, full: int = 255) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall at the thresholds t / 256, t = 0 .. 255; nan where undefined.

        Args:
            full: the level that stands for probability 1.

        A level v stands for probabilities within half a level of v / full. The probabilities are
        taken as spread evenly in there, so a threshold between two levels splits its pixels.
        """
        cuts = np.arange(256) * full / 256 + 0.5
        cuts[0] = 0
        near_truth, predicted, near_predicted = (
            np.interp(cuts, np.arange(257), np.append(np.cumsum(levels[::-1])[::-1], 0))
            for levels in (self.near_truth, self.predicted, self.near_predicted)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return near_truth / predicted, near_predicted / self.near_predicted.sum()


def curve(
    levels: np.ndarray, truth: np.ndarray, rho: int, valid: np.ndarray, inner: Inner = WHOLE
) -> Curve:
    """Count levels for a precision-recall curve.

    Args:
        levels: (h, w) uint8, rising with the probability.
        truth, valid: (h, w) bool; pixels that are not valid are background and do not count.
        rho: as in `relaxed`; 0 for the strict curve.
        inner: the part that is counted; the rest is margin of at least rho pixels.
    """
    levels, truth = np.where(valid, levels, np.uint8(0)), truth & valid
    near_truth = (_spread(truth, rho) & valid)[inner]
    near_predicted = _spread(levels, rho)[inner][truth[inner]]
    levels, valid = levels[inner], valid[inner]
    return Curve(
        *(
            np.bincount(chosen, minlength=256)
            for chosen in (levels[near_truth], levels[valid], near_predicted)
        )
    )


def break_even(precision: np.ndarray, recall: np.ndarray) -> float:
    """Precision where precision and recall are closest, as published numbers are read off.

    Args:
        precision, recall: (thresholds,); nan where undefined.

    Returns:
        The precision; nan if precision and recall are nowhere both defined and above 0.
    """
    distance = np.where((precision > 0) & (recall > 0), np.abs(precision - recall), np.inf)
    closest = int(np.argmin(distance))
    return float(precision[closest]) if np.isfinite(distance[closest]) else math.nan
