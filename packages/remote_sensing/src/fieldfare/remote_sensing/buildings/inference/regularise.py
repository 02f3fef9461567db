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
from collections.abc import Container, Iterable, Mapping

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
    pairs = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    pairs = pairs[:, pairs[0] < pairs[1]]
    walls = shapely.length(shapely.intersection(polygons[pairs[0]], polygons[pairs[1]]))
    pairs = pairs[:, walls > 0]
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(pairs.shape[1]), pairs), shape=(len(polygons), len(polygons)))
    _, group = connected_components(graph)
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    shared = shapely.area(shapely.intersection(one, other))
    iou: np.ndarray = shared / (shapely.area(one) + shapely.area(other) - shared)
    return iou


def _faithful(candidates: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """Which are valid polygons and keep MIN_IOU with their raw outline."""
    good = shapely.is_valid(candidates) & ~shapely.is_empty(candidates)
    good &= shapely.get_type_id(candidates) == shapely.GeometryType.POLYGON
    faithful: np.ndarray = good & (_iou(np.where(good, candidates, raw), raw) >= MIN_IOU)
    return faithful


def _overlapping(polygons: np.ndarray) -> np.ndarray:
    """(P, 2) indices of polygons that share area, the lower first."""
    pairs = shapely.STRtree(polygons).query(polygons, predicate="intersects").T
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    shared = shapely.area(shapely.intersection(polygons[pairs[:, 0]], polygons[pairs[:, 1]]))
    overlapping: np.ndarray = pairs[shared > SHARED]
    return overlapping


def _without_overlaps(versions: tuple[np.ndarray, ...], groups: list[np.ndarray]) -> np.ndarray:
    """Where two groups run into each other, the one less plain takes its next plainer version, of
    two alike the one that strayed more, until none do."""
    group_of = np.empty(len(versions[0]), np.int64)
    for number, members in enumerate(groups):
        group_of[members] = number
    level = np.zeros(len(groups), np.int64)
    last = len(versions) - 1
    result = versions[0].copy()
    while True:
        pairs = _overlapping(result)
        pairs = pairs[level[group_of[pairs]].min(axis=1) < last]
        if not len(pairs):
            return result
        plainness = level[group_of[pairs]] + _iou(result[pairs], versions[last][pairs])
        hit = np.unique(group_of[pairs[np.arange(len(pairs)), plainness.argmin(axis=1)]])
        level[hit] += 1
        for number in hit:
            result[groups[number]] = versions[level[number]][groups[number]]


def _simplified(raw: np.ndarray, tolerance: float) -> np.ndarray:
    """The polygons of one group with as little detail as MIN_IOU allows, shared walls alike.

    A wall between two corners where buildings meet is thinned as one line (Douglas and Peucker
    1973, doi 10.3138/FM57-6770-U75U-7727), so that it stays the same for both its sides. Buildings
    that stray get more of their corners back, the others do not.
    """
    levels = [share * tolerance for share in (1, 0.5, 0.25)]
    if len(raw) == 1:
        plains = (shapely.simplify(raw, level) for level in levels)
        return next((plain for plain in plains if _faithful(plain, raw).all()), raw)
    whole = noded(raw, SNAP)
    if not shapely.coverage_is_valid(whole):
        return raw  # walls that do not match vertex by vertex would come apart
    walls = shapely.get_parts(shapely.line_merge(shapely.unary_union(shapely.boundary(whole))))
    corners = [_corners(shapely.simplify(walls, level)) for level in levels]
    own = [_corners([polygon]) for polygon in whole]
    kept = corners[0].copy()
    level = np.zeros(len(raw), np.int64)
    while True:
        plain = np.array([_with_corners(polygon, kept) for polygon in whole], object)
        strayed = ~_faithful(plain, raw)
        if not strayed.any():
            strayed[_overlapping(plain).ravel()] = True
        if not strayed.any():
            return plain
        if (level[strayed] == len(levels)).all():
            return raw
        level[strayed] = np.minimum(level[strayed] + 1, len(levels))
        for index in np.flatnonzero(strayed):
            finer = corners[level[index]] if level[index] < len(levels) else own[index]
            kept |= own[index] & finer


def _corners(geometries: Iterable[shapely.Geometry]) -> set[Point]:
    return {(x, y) for x, y in shapely.get_coordinates(geometries).tolist()}


def _with_corners(polygon: shapely.Polygon, kept: Container[Point]) -> shapely.Polygon:
    """A polygon with only those of its corners; empty where fewer than three are left."""
    rings = [[point for point in ring[:-1] if point in kept] for ring in _rings([polygon])]
    return _polygon(rings)


def _polygon(rings: list[list[Point]]) -> shapely.Polygon:
    if len(rings[0]) < 3:
        return shapely.Polygon()
    return shapely.Polygon(rings[0], [ring for ring in rings[1:] if len(ring) >= 3])


def noded(polygons: np.ndarray, reach: float) -> np.ndarray:
    """Polygons with the corners of others that lie within `reach` of a wall put into it."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=reach)
    one, other = one[one != other], other[one != other]
    if not one.size:
        return polygons
    result = polygons.copy()
    starts = np.flatnonzero(np.diff(one, prepend=-1))
    for index, others in zip(one[starts], np.split(other, starts[1:]), strict=True):
        # In turn, not all at once: two corners must not each take the other's place.
        corners = shapely.get_coordinates(result[others])
        result[index] = shapely.snap(result[index], shapely.multipoints(corners), reach)
    return result


def _squared(raw: np.ndarray, plain: np.ndarray, tolerance: float) -> np.ndarray:
    """The polygons of one group with their vertices moved onto lines along common axes.

    A polygon that strays keeps the vertices of its plain outline, those it shares too, so that one
    round house does not leave a whole row unsquared.
    """
    centre = shapely.get_coordinates(plain).mean(axis=0)
    angle = dominant_direction(shapely.simplify(raw, tolerance))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = shapely.transform(plain, lambda xy: (xy - centre) @ turn.T)
    moves = _moves(list(_rings(turned)), tolerance)
    for _ in range(10):
        moved = _moved(turned, moves)
        squared: np.ndarray = shapely.transform(moved, lambda xy: xy @ turn + centre)
        strayed = ~_faithful(squared, raw)
        if not strayed.any():
            strayed[_overlapping(squared).ravel()] = True
        if not strayed.any():
            return squared
        for index in np.flatnonzero(strayed):
            moves |= {point: point for point in _corners([turned[index]])}
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


def _moved(polygons: np.ndarray, moves: Mapping[Point, Point]) -> np.ndarray:
    """Polygons with moved vertices, without those that are in the middle of a wall for all."""
    outlines = []
    needed = set()
    for polygon in polygons:
        outlines.append([_merged([moves[point] for point in ring]) for ring in _rings([polygon])])
        for ring in outlines[-1]:
            for before, point, after in zip(
                ring[-1:] + ring[:-1], ring, ring[1:] + ring[:1], strict=True
            ):
                if not (before[0] == point[0] == after[0] or before[1] == point[1] == after[1]):
                    needed.add(point)
    return np.array(
        [_polygon([[p for p in ring if p in needed] for ring in rings]) for rings in outlines],
        object,
    )


def _merged(ring: list[Point]) -> list[Point]:
    """A closed ring opened, each point that follows itself once."""
    return [point for point, after in itertools.pairwise(ring) if point != after]
