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

DEFINITIONS = {
    "building_iou": "Intersection over union of the building class, over all pixels pooled, at the "
    "raster's own resolution: TP / (TP + FP + FN). The headline.",
    "mean_iou": "Mean of the IoU of building and the IoU of background. Higher than building_iou "
    "wherever buildings are few; the two are not comparable.",
    "background_iou": "IoU of the background class: TN / (TN + FP + FN).",
    "accuracy": "Share of the pixels that are right: (TP + TN) / all.",
    "pixel_f1": "F1 of the building class over pixels: 2 TP / (2 TP + FP + FN).",
    "pixel_precision": "TP / (TP + FP) over pixels.",
    "pixel_recall": "TP / (TP + FN) over pixels.",
    "relaxed_precision": "Share of predicted building pixels with a true one in the square that "
    "reaches `rho` pixels each way (Mnih 2013).",
    "relaxed_recall": "Share of true building pixels with a predicted one in the same square.",
    "boundary_iou": "IoU of the bands that reach `boundary_px` pixels inwards from the outlines "
    "(Cheng et al. 2021, arXiv 2103.16562).",
    "break_even": "Precision at that of 256 thresholds t / 256 where precision and recall are "
    "closest, pooled.",
    "relaxed_break_even": "The same for relaxed precision and recall.",
    "rho": "Tolerance of the relaxed measures in pixels.",
    "boundary_px": "Width of the bands of boundary_iou in pixels; 1 m on scenes.",
    "object_f1": "F1 over buildings: a prediction is right if it has IoU >= 0.5 with a true "
    "building that no prediction of higher confidence took; smaller than min_area is left out on "
    "both sides (SpaceNet, Van Etten et al. 2018, arXiv 1807.01232).",
    "object_precision": "Right predictions / all predictions.",
    "object_recall": "True buildings found / all true buildings.",
    "tp": "True buildings found.",
    "fp": "Predictions that match no building.",
    "fn": "True buildings missed.",
    "ap50": "Average precision over falling confidence at IoU 0.5, 101 recalls as in COCO, no "
    "limit on the number of predictions.",
    "ap75": "The same at IoU 0.75.",
    "polis": "PoLiS distance of matched pairs, mean: vertices of each to the outline of the other "
    "(Avbelj et al. 2015, doi 10.1109/LGRS.2014.2330695); metres, or pixels without CRS.",
    "count_error": "(predicted - true) / true number of buildings; above 0 is too many.",
    "threshold": "Probability from which a pixel is a building.",
    "min_area": "Smaller buildings do not count in object measures; m2, or square pixels.",
    "size_bins": "recall: of true buildings of this area; precision: of predictions of this area; "
    "f1: harmonic mean of the two.",
}
"""What each column of a report means."""


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
    return ndimage.maximum_filter(values, 2 * reach + 1, mode="constant").view(image.dtype)


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


@dataclass(frozen=True, eq=False)
class PixelTally:
    """All counts of one prediction; the sum of two is that of both areas together.

    Attributes:
        curves: strict and relaxed; None for a prediction without probabilities.
        full: level of the curves that stands for probability 1.
    """

    confusion: Confusion
    relaxed: Relaxed
    boundary: Overlap
    curves: tuple[Curve, Curve] | None = None
    full: int = 255

    def __add__(self, other: "PixelTally") -> "PixelTally":
        curves = None
        if self.curves and other.curves and self.full == other.full:
            curves = (self.curves[0] + other.curves[0], self.curves[1] + other.curves[1])
        return PixelTally(
            self.confusion + other.confusion,
            self.relaxed + other.relaxed,
            self.boundary + other.boundary,
            curves,
            self.full,
        )

    def numbers(self) -> dict[str, float]:
        """The measures, named as in DEFINITIONS; nan where undefined."""
        c = self.confusion
        ends = [math.nan, math.nan]
        if self.curves:
            ends = [break_even(*one.precision_recall(self.full)) for one in self.curves]
        return {
            "building_iou": c.building_iou,
            "mean_iou": c.mean_iou,
            "background_iou": c.background_iou,
            "accuracy": c.accuracy,
            "pixel_f1": c.f1,
            "pixel_precision": c.precision,
            "pixel_recall": c.recall,
            "relaxed_precision": self.relaxed.precision,
            "relaxed_recall": self.relaxed.recall,
            "boundary_iou": self.boundary.iou,
            "break_even": ends[0],
            "relaxed_break_even": ends[1],
        }


def tally(
    predicted: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray,
    *,
    rho: int,
    boundary_px: int,
    levels: np.ndarray | None = None,
    full: int = 255,
    inner: Inner = WHOLE,
) -> PixelTally:
    """Count everything for one tile, or for a block with a margin of max(rho, boundary_px).

    Args:
        predicted, truth, valid: (h, w) bool; missing pixels are background and do not count.
        levels: (h, w) uint8 probabilities for the curves; `full` stands for 1.
        inner: the part that is counted.
    """
    predicted, truth = predicted & valid, truth & valid
    curves = None
    if levels is not None:
        curves = (curve(levels, truth, 0, valid, inner), curve(levels, truth, rho, valid, inner))
    return PixelTally(
        confusion(predicted[inner], truth[inner], valid[inner]),
        relaxed(predicted, truth, rho, inner),
        boundary_iou(predicted, truth, boundary_px, inner),
        curves,
        full,
    )
