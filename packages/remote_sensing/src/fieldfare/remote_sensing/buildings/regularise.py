# SPDX-License-Identifier: Apache-2.0
"""Squaring building outlines: edges turned to a building's dominant directions, walls kept shared.

Polygons that touch form a group and are treated as one coverage: simplified together, turned by one
angle, and moved vertex by vertex, so that a vertex that two of them share moves once. In the
group's own axes an edge within ANGLE of one is put on a line along it; edges of one direction that
follow each other share a line. Corners are where lines meet. Each result is checked against its raw
outline and gives way to a plainer one where it has strayed.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import shapely

MIN_IOU = 0.8
"""A squared outline must keep at least this IoU with the raw one."""

ANGLE = 27.0
"""Degrees from a dominant direction within which an edge is turned to it."""

SHARED = 1e-6
"""Square metres of overlap that count as none."""

SNAP = 1e-3
"""Metres within which a neighbour's corner lies on a wall: reprojection bends it a little."""

Point = tuple[float, float]


def regularise(polygons: np.ndarray, tolerance: float) -> np.ndarray:
    """Square the outlines of buildings.

    Args:
        polygons: (N,) valid shapely Polygons in metres, without overlaps.
        tolerance: metres; detail smaller than this is taken as noise. About 2.5 pixels for
            outlines drawn from a raster.

    Returns:
        (N,) valid Polygons in the same order. Each has an IoU of at least MIN_IOU with its own
        raw outline; where squaring or simplifying would break that, or make two overlap, the
        raw one stays.
    """
    if not len(polygons):
        return polygons
    groups = _groups(polygons)
    plain, squared = polygons.copy(), polygons.copy()
    for members in groups:
        plain[members] = _simplified(polygons[members], tolerance)
        squared[members] = _squared(polygons[members], plain[members], tolerance)
    return _without_overlaps((squared, plain, polygons), groups)


def _groups(polygons: np.ndarray) -> list[np.ndarray]:
    """Indices of polygons that share a wall, directly or through others."""
    parent = list(range(len(polygons)))
    pairs = _touching(polygons)
    walls = shapely.length(shapely.intersection(polygons[pairs[:, 0]], polygons[pairs[:, 1]]))
    for one, other in pairs[walls > 0].tolist():
        parent[_root(parent, one)] = _root(parent, other)
    roots = np.array([_root(parent, index) for index in range(len(parent))])
    order = np.argsort(roots, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)


def _touching(polygons: np.ndarray) -> np.ndarray:
    """(P, 2) indices of polygons that have a point in common, the lower first."""
    pairs = shapely.STRtree(polygons).query(polygons, predicate="intersects").T
    return pairs[pairs[:, 0] < pairs[:, 1]]


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _faithful(candidates: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Which are valid polygons and keep MIN_IOU with their raw outline."""
    good = shapely.is_valid(candidates) & ~shapely.is_empty(candidates)
    good &= shapely.get_type_id(candidates) == shapely.GeometryType.POLYGON
    known = np.where(good, candidates, raw)
    shared = shapely.area(shapely.intersection(known, raw))
    return good & (shared >= MIN_IOU * (shapely.area(known) + shapely.area(raw) - shared))


def _overlapping(polygons: np.ndarray) -> np.ndarray:
    """(P, 2) indices of polygons that share area."""
    pairs = _touching(polygons)
    shared = shapely.area(shapely.intersection(polygons[pairs[:, 0]], polygons[pairs[:, 1]]))
    return pairs[shared > SHARED]


def _without_overlaps(versions: tuple[np.ndarray, ...], groups: list[np.ndarray]) -> np.ndarray:
    """Groups that run into each other take the next plainer version until none does."""
    group_of = np.empty(len(versions[0]), np.int64)
    for number, members in enumerate(groups):
        group_of[members] = number
    level = np.zeros(len(groups), np.int64)
    result = versions[0].copy()
    while True:
        hit = np.unique(group_of[_overlapping(result)])
        hit = hit[level[hit] < len(versions) - 1]
        if not hit.size:
            return result
        level[hit] += 1
        for number in hit:
            result[groups[number]] = versions[level[number]][groups[number]]


def _simplified(raw: np.ndarray, tolerance: float) -> np.ndarray:
    """The polygons of one group with as little detail as MIN_IOU allows, shared walls alike."""
    noded = _noded(raw)
    if len(raw) > 1 and not shapely.coverage_is_valid(noded):
        return raw  # walls that do not match vertex by vertex would come apart
    for share in (1, 0.5, 0.25):
        if len(raw) == 1:
            plain = shapely.simplify(raw, share * tolerance)
        else:
            plain = shapely.coverage_simplify(noded, share * tolerance)
        if _faithful(plain, raw).all():
            return plain
    return raw


def _noded(polygons: np.ndarray) -> np.ndarray:
    """With the vertices of neighbours in their walls, where three of them meet for one."""
    if len(polygons) == 1:
        return polygons
    corners = shapely.multipoints(np.unique(shapely.get_coordinates(polygons), axis=0))
    return shapely.snap(polygons, corners, SNAP)


def _squared(raw: np.ndarray, plain: np.ndarray, tolerance: float) -> np.ndarray:
    """The polygons of one group with their vertices moved onto lines along common axes.

    A polygon that strays keeps the vertices of its plain outline, those it shares too, so that one
    round house does not leave a whole row unsquared.
    """
    centre = shapely.get_coordinates(plain).mean(axis=0)
    angle = dominant_direction(plain)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = shapely.transform(plain, lambda xy: (xy - centre) @ turn.T)
    moves = _moves(list(_rings(turned)), tolerance)
    corners = [{point for ring in _rings([polygon]) for point in ring} for polygon in turned]
    counts = Counter(point for points in corners for point in points)
    for _ in range(4):
        moved = np.array([_moved(polygon, moves, counts) for polygon in turned], object)
        squared = shapely.transform(moved, lambda xy: xy @ turn + centre)
        strayed = ~_faithful(squared, raw)
        if not strayed.any():
            strayed[_overlapping(squared).ravel()] = True
        if not strayed.any():
            return squared
        for index in np.flatnonzero(strayed):
            moves |= {point: point for point in corners[index]}
    return plain


def dominant_direction(polygons: np.ndarray) -> float:
    """Angle in radians, within a quarter turn, to which most of the outlines' length is parallel
    or square: the fullest degree of a smoothed histogram, refined by the mean around it."""
    rings = [shapely.get_coordinates(ring) for p in polygons for ring in (p.exterior, *p.interiors)]
    steps = np.concatenate([np.diff(ring, axis=0) for ring in rings])
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    angles = np.degrees(np.arctan2(steps[:, 1], steps[:, 0])) % 90
    histogram = np.bincount((angles.astype(int)) % 90, lengths, minlength=90)
    reach = np.arange(-6, 7)
    kernel = 7 - np.abs(reach)
    smooth = sum(k * np.roll(histogram, shift) for shift, k in zip(reach, kernel, strict=True))
    peak = float(np.argmax(smooth)) + 0.5
    away = (angles - peak + 45) % 90 - 45
    near = np.abs(away) <= 10
    if near.any():
        peak += float(np.average(away[near], weights=lengths[near] + 1e-12))
    return math.radians(peak)


def _rings(polygons: Iterable[shapely.Polygon]) -> Iterable[list[Point]]:
    """Closed rings as lists of points."""
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            yield [(float(x), float(y)) for x, y in ring.coords]


class _Lines:
    """Lines along one axis: vertices that share one are joined, and its place is a mean."""

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.parent: dict[Point, Point] = {}
        self.sums: dict[Point, tuple[float, float]] = {}

    def root(self, point: Point) -> Point:
        self.parent.setdefault(point, point)
        while self.parent[point] != point:
            self.parent[point] = self.parent[self.parent[point]]
            point = self.parent[point]
        return point

    def join(self, one: Point, other: Point, weight: float) -> None:
        """Put an edge on a line; weight is its length."""
        a, b = self.root(one), self.root(other)
        place = (one[self.axis] + other[self.axis]) / 2
        total = [
            sum(pair)
            for pair in zip(self.sums.get(a, (0, 0)), (weight * place, weight), strict=True)
        ]
        if a != b:
            total = [x + y for x, y in zip(total, self.sums.pop(b, (0, 0)), strict=True)]
            self.parent[b] = a
        self.sums[a] = (total[0], total[1])

    def place(self, point: Point) -> float | None:
        """Where the line of a point lies; None if it is on none."""
        if point not in self.parent:
            return None
        weighted, weight = self.sums[self.root(point)]
        return weighted / weight


def _moves(rings: list[list[Point]], tolerance: float) -> dict[Point, Point]:
    """Old to new vertices."""
    level, upright = _Lines(axis=1), _Lines(axis=0)
    slope = math.tan(math.radians(ANGLE))
    slanted: list[tuple[Point, Point, float]] = []
    for ring in rings:
        for one, other in itertools.pairwise(ring):
            dx, dy = abs(other[0] - one[0]), abs(other[1] - one[1])
            length = math.hypot(dx, dy)
            if dy <= slope * dx:
                level.join(one, other, length)
            elif dx <= slope * dy:
                upright.join(one, other, length)
            else:
                slanted.append((one, other, length))
    places = {point: (upright.place(point), level.place(point)) for ring in rings for point in ring}
    for one, other, length in slanted:
        # A short slanted edge between walls is a corner that a raster has cut off.
        if length > 4 * tolerance:
            continue
        joined = [
            a if a is not None else b for a, b in zip(places[one], places[other], strict=True)
        ]
        lone = [None in places[point] for point in (one, other)]
        if None not in joined and all(lone):
            places[one] = places[other] = (joined[0], joined[1])
    return {
        point: (point[0] if x is None else x, point[1] if y is None else y)
        for point, (x, y) in places.items()
    }


def _moved(
    polygon: shapely.Polygon, moves: Mapping[Point, Point], counts: Mapping[Point, int]
) -> shapely.Polygon:
    """A polygon with moved vertices, without those in the middle of a wall that no other shares."""
    rings = []
    for ring in _rings([polygon]):
        corners: list[tuple[Point, int]] = []
        for point in ring[:-1]:
            if corners and corners[-1][0] == moves[point]:
                corners[-1] = (corners[-1][0], max(corners[-1][1], counts[point]))
            else:
                corners.append((moves[point], counts[point]))
        if len(corners) > 1 and corners[0][0] == corners[-1][0]:
            corners.pop()
        kept = []
        for index, (point, count) in enumerate(corners):
            before, after = corners[index - 1][0], corners[(index + 1) % len(corners)][0]
            straight = before[0] == point[0] == after[0] or before[1] == point[1] == after[1]
            if count > 1 or not straight:
                kept.append(point)
        rings.append(kept)
    if len(rings[0]) < 3:
        return shapely.Polygon()
    return shapely.Polygon(rings[0], [ring for ring in rings[1:] if len(ring) >= 3])
