# SPDX-License-Identifier: Apache-2.0
"""Squaring building outlines: edges turned to a building's dominant directions, walls kept shared.

Polygons that touch form a group and are treated as one coverage: simplified together, turned by one
angle, and moved vertex by vertex, so that a vertex that two of them share moves once. In the
group's own axes an edge within ANGLE of one is put on a line along it; edges of one direction that
follow each other share a line. Corners are where lines meet. Each result is checked against its raw
outline and gives way to a plainer one where it has strayed.
"""

import math

import numpy as np
import shapely

from .rings import Outlines, following, numbers

MIN_IOU = 0.8
"""A squared outline must keep at least this IoU with the raw one."""

ANGLE = 27.0
"""Degrees from a dominant direction within which an edge is turned to it."""

SHARED = 1e-6
"""Square metres of overlap that count as none."""

SNAP = 1e-3
"""Metres within which a neighbour's corner lies on a wall: reprojection bends it a little."""


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
    one, other = polygons[pairs]
    walls = shapely.relate_pattern(one, other, "****1****")  # which spares most an overlay
    rest = np.flatnonzero(~walls)
    walls[rest] = shapely.length(shapely.intersection(one[rest], other[rest])) > 0
    pairs = pairs[:, walls]
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
    if len(polygons) == 1:
        return np.empty((0, 2), np.int64)
    pairs = shapely.STRtree(polygons).query(polygons, predicate="intersects").T
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[~shapely.touches(polygons[pairs[:, 0]], polygons[pairs[:, 1]])]
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
    outlines = Outlines.of(whole)
    points, owner = numbers(outlines.points), outlines.owner
    thinned = [shapely.get_coordinates(shapely.simplify(walls, level)) for level in levels]
    corners = [np.isin(points, numbers(xy)) for xy in thinned]
    finer = np.array([*corners, np.ones(len(points), bool)])
    kept, level = finer[0].copy(), np.zeros(len(raw), np.int64)
    plain, faithful = np.full(len(raw), None), np.zeros(len(raw), bool)
    while True:
        vertices = np.flatnonzero(kept[outlines.corner])
        xy = outlines.points[outlines.corner[vertices]]
        before, plain = plain, outlines.drawn(xy, outlines.ring[vertices])
        changed = ~shapely.equals_exact(plain, before)
        faithful[changed] = _faithful(plain[changed], raw[changed])
        strayed = ~faithful
        if not strayed.any():
            strayed[_overlapping(plain).ravel()] = True
        if not strayed.any():
            return plain
        if (level[strayed] == len(levels)).all():
            return raw
        level[strayed] = np.minimum(level[strayed] + 1, len(levels))
        back = strayed[owner] & finer[level[owner], outlines.corner]
        kept[outlines.corner[back]] = True


def noded(polygons: np.ndarray, reach: float) -> np.ndarray:
    """Polygons with the corners of others that lie within `reach` of a wall put into it."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=reach)
    one, other = one[one != other], other[one != other]
    if not one.size:
        return polygons
    result = polygons.copy()
    low, high = np.split(shapely.bounds(polygons), 2, axis=1)
    starts = np.flatnonzero(np.diff(one, prepend=-1))
    for index, others in zip(one[starts], np.split(other, starts[1:]), strict=True):
        # In turn, not all at once: two corners must not each take the other's place.
        corners = shapely.get_coordinates(result[others])
        near = (corners >= low[index] - reach) & (corners <= high[index] + reach)
        corners = corners[near.all(axis=1)]  # the others' far sides would only take time
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
    outlines = Outlines.of(shapely.transform(plain, lambda xy: (xy - centre) @ turn.T))
    places = _moves(outlines, tolerance)
    squared: np.ndarray = np.full(len(raw), None)
    faithful = np.zeros(len(raw), bool)
    for _ in range(10):
        moved = _moved(outlines, places)
        before, squared = squared, shapely.transform(moved, lambda xy: xy @ turn + centre)
        changed = ~shapely.equals_exact(squared, before)
        faithful[changed] = _faithful(squared[changed], raw[changed])
        strayed = ~faithful
        if not strayed.any():
            strayed[_overlapping(squared).ravel()] = True
        if not strayed.any():
            return squared
        stay = outlines.corner[strayed[outlines.owner]]
        places[stay] = outlines.points[stay]
    return plain


def dominant_direction(polygons: np.ndarray) -> float:
    """Angle in radians, within a quarter turn, to which most of the outlines' length is parallel
    or square: the fullest degree of a smoothed histogram, refined by the mean around it."""
    xy, ring = shapely.get_coordinates(shapely.get_rings(polygons), return_index=True)
    steps = np.diff(xy, axis=0)[np.diff(ring) == 0]
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    angles = np.degrees(np.arctan2(steps[:, 1], steps[:, 0])) % 90
    histogram = np.bincount((angles.astype(int)) % 90, lengths, minlength=90)
    reach = np.arange(-6, 7)[:, None]
    around = histogram[(np.arange(90) - reach) % 90]
    smooth = ((7 - np.abs(reach)) * around).sum(axis=0)
    peak = float(np.argmax(smooth)) + 0.5
    away = (angles - peak + 45) % 90 - 45
    near = np.abs(away) <= 10
    if near.any():
        peak += float(np.average(away[near], weights=lengths[near] + 1e-12))
    return math.radians(peak)


class _Lines:
    """Lines along one axis: points that share one are joined, and its place is a mean."""

    def __init__(self, across: list[float]) -> None:
        self.across = across
        self.parent: dict[int, int] = {}
        self.sums: dict[int, tuple[float, float]] = {}

    def root(self, point: int) -> int:
        self.parent.setdefault(point, point)
        while self.parent[point] != point:
            self.parent[point] = self.parent[self.parent[point]]
            point = self.parent[point]
        return point

    def join(self, one: int, other: int, weight: float) -> None:
        """Put an edge on a line; weight is its length."""
        a, b = self.root(one), self.root(other)
        place = (self.across[one] + self.across[other]) / 2
        weighted, total = self.sums.get(a, (0.0, 0.0))
        weighted, total = weighted + weight * place, total + weight
        if a != b:
            more = self.sums.pop(b, (0.0, 0.0))
            weighted, total = weighted + more[0], total + more[1]
            self.parent[b] = a
        self.sums[a] = (weighted, total)

    def place(self, point: int) -> float | None:
        """Where the line of a point lies; None if it is on none."""
        if point not in self.parent:
            return None
        weighted, weight = self.sums[self.root(point)]
        return weighted / weight


def _moves(outlines: Outlines, tolerance: float) -> np.ndarray:
    """New places of the points, (P, 2)."""
    x, y = outlines.points.T.tolist()
    level, upright = _Lines(y), _Lines(x)
    slope = math.tan(math.radians(ANGLE))
    slanted: list[tuple[int, int, float]] = []
    after = outlines.corner[following(outlines.ring)]
    for one, other in zip(outlines.corner.tolist(), after.tolist(), strict=True):
        dx, dy = abs(x[other] - x[one]), abs(y[other] - y[one])
        length = math.hypot(dx, dy)
        if dy <= slope * dx:
            level.join(one, other, length)
        elif dx <= slope * dy:
            upright.join(one, other, length)
        else:
            slanted.append((one, other, length))
    places = [(upright.place(point), level.place(point)) for point in range(len(x))]
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
    moved = np.array(places, float).reshape(-1, 2)  # None becomes NaN
    return np.where(np.isnan(moved), outlines.points, moved)


def _moved(outlines: Outlines, places: np.ndarray) -> np.ndarray:
    """Polygons with moved points, without those that are in the middle of a wall for all."""
    xy, ring = places[outlines.corner], outlines.ring
    steps = (xy != xy[following(ring)]).any(axis=1)
    xy, ring = xy[steps], ring[steps]
    after = following(ring)
    along = xy == xy[after]
    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    _, point = np.unique(numbers(xy), return_inverse=True)
    needed = np.zeros(len(xy), bool)
    needed[point[~(along & along[before]).any(axis=1)]] = True
    return outlines.drawn(xy[needed[point]], ring[needed[point]])
