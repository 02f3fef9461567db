# SPDX-License-Identifier: Apache-2.0
"""Object metrics: predicted building outlines matched with true ones."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import shapely

from .metrics import ratio

SIZE_EDGES = (0.0, 25.0, 50.0, 100.0, 200.0, math.inf)
"""Edges of the size bins in m2; a building of exactly an edge belongs to the bin above."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Predicted and true polygons that overlap: indices (N,) of each and their IoU (N,)."""

    predicted: np.ndarray
    truth: np.ndarray
    iou: np.ndarray


def overlaps(predicted: np.ndarray, truth: np.ndarray) -> Pairs:
    """IoU of all pairs that share area.

    Args:
        predicted, truth: (P,) and (T,) valid shapely polygons in one plane coordinate system.
    """
    found, wanted = shapely.STRtree(truth).query(predicted, predicate="intersects")
    shared = shapely.area(shapely.intersection(predicted[found], truth[wanted]))
    union = shapely.area(predicted)[found] + shapely.area(truth)[wanted] - shared
    kept = shared > 0
    return Pairs(found[kept], wanted[kept], shared[kept] / union[kept])


@dataclass(frozen=True, eq=False)
class Matches:
    """One-to-one matches.

    Attributes:
        truth: (P,) int64, index of the true polygon of each prediction; -1 where it has none.
        predicted: (T,) int64, index of the prediction of each true polygon; -1 where missed.
    """

    truth: np.ndarray
    predicted: np.ndarray


def match(
    predicted: np.ndarray,
    truth: np.ndarray,
    scores: np.ndarray | None = None,
    *,
    iou: float = 0.5,
    pairs: Pairs | None = None,
) -> Matches:
    """Match greedily: by falling score each prediction takes the free true polygon of highest IoU.

    Args:
        predicted, truth: (P,) and (T,) valid shapely polygons in one plane coordinate system.
        scores: (P,) confidences; among equal ones, and without any, the higher IoU goes first.
        iou: least IoU of a match.
        pairs: of `overlaps`, if already known.

    Source: SpaceNet, Van Etten et al. 2018, arXiv 1807.01232.
    """
    pairs = pairs or overlaps(predicted, truth)
    enough = np.flatnonzero(pairs.iou >= iou)
    found, wanted, quality = pairs.predicted[enough], pairs.truth[enough], pairs.iou[enough]
    rank = np.zeros(len(predicted)) if scores is None else -np.asarray(scores, np.float64)
    matches = Matches(np.full(len(predicted), -1), np.full(len(truth), -1))
    for index in np.lexsort((-quality, rank[found])):
        p, t = found[index], wanted[index]
        if matches.truth[p] < 0 and matches.predicted[t] < 0:
            matches.truth[p], matches.predicted[t] = t, p
    return matches


def average_precision(scores: np.ndarray, right: np.ndarray, truths: int) -> float:
    """Mean of the highest precision at 101 recalls 0, 0.01 .. 1 and beyond, as COCO does.

    Args:
        scores, right: (P,) confidence of each prediction, and whether it matches.
        truths: number of true polygons.

    Returns:
        nan without true polygons or with a missing (nan) score.
    """
    if truths == 0 or np.isnan(scores).any():
        return math.nan
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    reached = np.searchsorted(hits / truths, np.linspace(0, 1, 101), side="left")
    return float(envelope[reached].mean())


def polis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """PoLiS distance of pairs of polygons: mean distance of vertices to the other's outline.

    Args:
        a, b: (N,) polygons; only their outer rings count.

    Returns:
        (N,) in the unit of the coordinates: half the mean over the vertices of a plus half the
        mean over those of b.

    Source: Avbelj, Mueller, Bamler 2015, doi 10.1109/LGRS.2014.2330695.
    """
    both: np.ndarray = _mean_distance(a, b) + _mean_distance(b, a)
    return both / 2


def _mean_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if not len(a):
        return np.empty(0)
    rings, owner = _outlines(a)
    others, other_owner = _outlines(b)
    outline = shapely.multilinestrings(others, indices=other_owner)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    kept = np.diff(ring, append=len(rings)) == 0  # the last vertex of a ring repeats the first
    points, pair = points[kept], owner[ring[kept]]
    distance = shapely.distance(shapely.points(points), outline[pair])
    return np.bincount(pair, distance, len(a)) / np.bincount(pair, minlength=len(a))


def _outlines(polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outer rings, and the index of the polygon each belongs to."""
    parts, owner = shapely.get_parts(polygons, return_index=True)
    kept = shapely.area(parts) > 0  # cutting can leave lines and points behind
    return shapely.get_exterior_ring(parts[kept]), owner[kept]


@dataclass(frozen=True)
class SizeBin:
    """Scores of buildings from `least` to below `below` m2; recall by true area, precision by
    predicted area, f1 the harmonic mean of the two. nan where the bin is empty."""

    least: float
    below: float
    truths: int
    predictions: int
    recall: float
    precision: float

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        if self.precision + self.recall == 0:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


@dataclass(frozen=True, eq=False)
class ObjectTally:
    """What object metrics are made of; the sum of two is that of both areas together.

    Attributes:
        areas, scores, right50, right75: (P,) of predictions; scores are nan where unknown.
        true_areas, found50: (T,) of true polygons.
        distances: (M,) PoLiS of the pairs matched at IoU 0.5.
    """

    areas: np.ndarray
    scores: np.ndarray
    right50: np.ndarray
    right75: np.ndarray
    true_areas: np.ndarray
    found50: np.ndarray
    distances: np.ndarray

    def __add__(self, other: "ObjectTally") -> "ObjectTally":
        return ObjectTally(
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self))
        )

    @property
    def tp(self) -> int:
        """True polygons found."""
        return int(self.found50.sum())

    @property
    def fp(self) -> int:
        """Predictions without a match."""
        return len(self.areas) - self.tp

    @property
    def fn(self) -> int:
        """True polygons missed."""
        return len(self.true_areas) - self.tp

    def numbers(self) -> dict[str, float]:
        """The measures, named as in `reports.DEFINITIONS`; nan where undefined."""
        predictions, truths = len(self.areas), len(self.true_areas)
        return {
            "object_f1": ratio(2 * self.tp, predictions + truths),
            "object_precision": ratio(self.tp, predictions),
            "object_recall": ratio(self.tp, truths),
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
            "ap50": average_precision(self.scores, self.right50, truths),
            "ap75": average_precision(self.scores, self.right75, truths),
            "polis": float(self.distances.mean()) if self.distances.size else math.nan,
            "count_error": ratio(predictions - truths, truths),
        }

    def by_size(self, edges: Sequence[float] = SIZE_EDGES) -> list[SizeBin]:
        """Scores by area; edges rise, the first bin begins at the first edge."""
        bins = []
        for least, below in itertools.pairwise(edges):
            mine = (self.areas >= least) & (self.areas < below)
            true = (self.true_areas >= least) & (self.true_areas < below)
            truths, predictions = int(true.sum()), int(mine.sum())
            recall = ratio(int(self.found50[true].sum()), truths)
            precision = ratio(int(self.right50[mine].sum()), predictions)
            bins.append(SizeBin(least, below, truths, predictions, recall, precision))
        return bins


def object_scores(
    predicted: np.ndarray,
    truth: np.ndarray,
    scores: np.ndarray | None = None,
    *,
    min_area: float = 0.0,
) -> ObjectTally:
    """Match the polygons of one image or scene and tally the result.

    Args:
        predicted, truth: (P,) and (T,) valid shapely polygons in one plane coordinate system.
        scores: (P,) confidences.
        min_area: smaller polygons, and empty ones, are left out on both sides before matching, as
            SpaceNet does; in the square of the coordinates' unit.
    """
    areas, true_areas = shapely.area(predicted), shapely.area(truth)
    kept = (areas > 0) & (areas >= min_area)
    wanted = (true_areas > 0) & (true_areas >= min_area)
    predicted, truth = predicted[kept], truth[wanted]
    scores = None if scores is None else np.asarray(scores, np.float64)[kept]
    pairs = overlaps(predicted, truth)
    at50 = match(predicted, truth, scores, pairs=pairs)
    at75 = match(predicted, truth, scores, iou=0.75, pairs=pairs)
    right = at50.truth >= 0
    return ObjectTally(
        areas[kept],
        np.full(len(predicted), math.nan) if scores is None else scores,
        right,
        at75.truth >= 0,
        true_areas[wanted],
        at50.predicted >= 0,
        polis(predicted[right], truth[at50.truth[right]]),
    )
