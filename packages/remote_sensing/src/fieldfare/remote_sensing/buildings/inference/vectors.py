# SPDX-License-Identifier: Apache-2.0
"""Footprints as vectors: holes, overlaps, rounding, cleaning."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import shapely

from ...vectors.projecting import largest, metric_crs, repair, reproject
from .regularise import SHARED, noded, regularise

if TYPE_CHECKING:
    import geopandas as gpd

DEGREES = 1e-7
"""What GeoJSON coordinates are rounded to, about a centimetre."""

DEGREE = 111_000
"""Metres of a degree, about."""


def fill_holes(polygons: np.ndarray, max_hole: float) -> np.ndarray:
    """Polygons without their holes of less than `max_hole` square units."""
    filled = polygons.copy()
    for index in np.flatnonzero(shapely.get_num_interior_rings(polygons)):
        rings = [shapely.Polygon(ring) for ring in polygons[index].interiors]
        kept = [ring.exterior for ring in rings if ring.area >= max_hole]
        filled[index] = shapely.Polygon(polygons[index].exterior, kept)
    return filled


def part_overlaps(polygons: np.ndarray) -> np.ndarray:
    """Polygons without overlaps: what two share stays with the smaller one, if more than 1 mm2.
    One that others cover wholly becomes empty."""
    return _parted(polygons, overlapping(polygons), 0.0)


def _parted(polygons: np.ndarray, pairs: Iterable[tuple[int, int]], gap: float) -> np.ndarray:
    """With what each pair shares, and `gap` around it, taken from the larger one."""
    polygons = polygons.copy()
    for one, other in pairs:
        smaller, larger = (
            (one, other) if polygons[one].area < polygons[other].area else (other, one)
        )
        taken = shapely.buffer(polygons[smaller], gap, join_style="mitre")
        polygons[larger] = largest(shapely.difference(polygons[larger], taken))
    return polygons


def overlapping(polygons: np.ndarray, least: float = SHARED) -> list[tuple[int, int]]:
    """Pairs of polygons that share more than `least` square units, the first index the lower."""
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    one, other = one[one < other], other[one < other]
    shared = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    return [
        (int(a), int(b)) for a, b in zip(one[shared > least], other[shared > least], strict=True)
    ]


def rounded_degrees(polygons: np.ndarray) -> np.ndarray:
    """Polygons in degrees with corners on multiples of DEGREES, valid; no new ones overlap.

    A neighbour's corner in the middle of a wall becomes a corner of that wall too, so that both
    round alike. Walls a few millimetres apart may still cross then, and are set apart.
    """
    rounded = _on_grid(noded(polygons, DEGREES / 10))
    least = SHARED / DEGREE**2
    before = set(overlapping(polygons, least))
    for _ in range(10):
        pairs = set(overlapping(rounded, least)) - before
        if not pairs:
            break
        parted = _on_grid(_parted(rounded, sorted(pairs), 1.5 * DEGREES))
        rounded = np.where(shapely.is_empty(parted), rounded, parted)
    return rounded


def _on_grid(polygons: np.ndarray) -> np.ndarray:
    """Rounded to DEGREES; what falls to pieces keeps the largest, what vanishes stays as it is."""
    rounded = shapely.set_precision(polygons, DEGREES)
    rounded = shapely.set_precision(rounded, 0)  # or else its overlaps would be rounded as well
    for index in np.flatnonzero(shapely.get_type_id(rounded) != shapely.GeometryType.POLYGON):
        rounded[index] = largest(rounded[index])
    return np.where(shapely.is_empty(rounded), polygons, rounded)


def clean(frame: "gpd.GeoDataFrame", *, tolerance: float = 0.5) -> "gpd.GeoDataFrame":
    """Square the outlines of footprints in any CRS; rows, columns and CRS stay.

    Works in the local UTM zone, so the same buildings give the same result whatever their CRS;
    without CRS the coordinates are taken as metres.

    Args:
        frame: Polygons, or MultiPolygons, of which each part becomes a row.
        tolerance: metres that an outline may be moved by, roughly; see `regularise`.
    """
    import geopandas as gpd

    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)].explode(ignore_index=True)
    if frame.empty:
        return frame
    polygons = repair(frame.geometry.to_numpy())
    crs = frame.crs
    metric = metric_crs(crs, frame.total_bounds)
    if metric is not None:
        polygons = reproject(polygons, crs, metric)
    polygons = part_overlaps(polygons)
    kept = np.flatnonzero(shapely.area(polygons) > SHARED)
    frame, polygons = frame.iloc[kept].reset_index(drop=True), regularise(polygons[kept], tolerance)
    if metric is not None:
        polygons = reproject(polygons, metric, crs)
    return frame.set_geometry(gpd.GeoSeries(polygons, index=frame.index, crs=crs))
