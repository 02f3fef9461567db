# SPDX-License-Identifier: Apache-2.0
"""Which detections are right: pairs of a detection and an object, each in one pair at most.

There are as many pairs as there can be (a maximum matching, Hopcroft and Karp 1973), so no order of
the detections matters.
"""

from dataclasses import dataclass

import numpy as np
import shapely
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import cKDTree


@dataclass(frozen=True)
class Counts:
    """Pairs, detections without object, objects without detection."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.right + other.right, self.wrong + other.wrong, self.missed + other.missed
        )

    @property
    def precision(self) -> float:
        """Share of the detections that are right; NaN without any."""
        found = self.right + self.wrong
        return self.right / found if found else float("nan")

    @property
    def recall(self) -> float:
        """Share of the objects that are found; NaN without any."""
        there = self.right + self.missed
        return self.right / there if there else float("nan")

    @property
    def f1(self) -> float:
        """2 right / (detections + objects); NaN where there is neither."""
        both = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / both if both else float("nan")


def pair_points(found: np.ndarray, true: np.ndarray, reach: float) -> np.ndarray:
    """Pairs of points at most `reach` apart.

    Args:
        found, true: (N, 2) and (M, 2), in one unit.

    Returns:
        (M,) int64: which detection each object has; -1 is none.
    """
    if not len(found) or not len(true):
        return np.full(len(true), -1, np.int64)
    near = cKDTree(found).query_ball_point(true, reach)
    rows = np.repeat(np.arange(len(true)), [len(others) for others in near])
    columns = np.array([column for others in near for column in sorted(others)], np.int64)
    return _paired(rows, columns, (len(true), len(found)))


def pair_boxes(found: np.ndarray, true: np.ndarray, least: float) -> np.ndarray:
    """Pairs of boxes, (N, 4) and (M, 4), with an IoU of at least `least`; see `pair_points`."""
    if not len(found) or not len(true):
        return np.full(len(true), -1, np.int64)
    own, other = shapely.box(*true.T), shapely.box(*found.T)
    rows, columns = shapely.STRtree(other).query(own)
    shared = shapely.area(shapely.intersection(own[rows], other[columns]))
    both = shapely.area(own[rows]) + shapely.area(other[columns]) - shared
    much = shared >= least * both
    return _paired(rows[much], columns[much], (len(true), len(found)))


def _paired(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    graph = csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=shape)
    paired: np.ndarray = maximum_bipartite_matching(graph, perm_type="column").astype(np.int64)
    return paired


def counts_of(pairs: np.ndarray, found: int) -> Counts:
    """The numbers behind some pairs.

    Args:
        pairs: (M,) as `pair_points` gives them.
        found: number of detections.
    """
    right = int((pairs >= 0).sum())
    return Counts(right, found - right, len(pairs) - right)
