# SPDX-License-Identifier: Apache-2.0
"""All pixel metrics of one prediction together, as counts that add up."""

import math
from dataclasses import dataclass

import numpy as np

from .metrics import (
    WHOLE,
    Confusion,
    Curve,
    Inner,
    Overlap,
    Relaxed,
    boundary_iou,
    break_even,
    confusion,
    curve,
    relaxed,
)


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
        """The measures, named as in `reports.DEFINITIONS`; nan where undefined."""
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
