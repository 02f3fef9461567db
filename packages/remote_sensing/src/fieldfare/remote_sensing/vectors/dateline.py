# SPDX-License-Identifier: Apache-2.0
"""Coordinates that go around the Earth: a raster across the 180th meridian counts on above 180."""

import math

import numpy as np
import shapely
import shapely.affinity
from pyproj import CRS


def turn(crs: CRS | None) -> float | None:
    """Length of a way around the Earth along x; None where x does not go around."""
    if crs is None:
        return None
    if crs.is_geographic:
        return 360.0
    method = crs.coordinate_operation.method_name if crs.coordinate_operation else ""
    if "Mercator" in method and "Transverse" not in method and "Oblique" not in method:
        ellipsoid = crs.ellipsoid
        return None if ellipsoid is None else 2 * math.pi * ellipsoid.semi_major_metre
    return None


def near(geometries: np.ndarray, crs: CRS | None, x: float) -> np.ndarray:
    """Geometries with each point on the turn that is nearest to `x`."""
    length = turn(crs)
    if length is None or not len(geometries):
        return geometries
    left, _, right, _ = shapely.total_bounds(geometries)
    if x - length / 2 < left and right < x + length / 2:
        return geometries
    moved: np.ndarray = shapely.transform(
        geometries, lambda xy: xy - np.column_stack((_turns(xy[:, 0] - x, length), xy[:, 1] * 0))
    )
    return moved


def _turns(away: np.ndarray, length: float) -> np.ndarray:
    turns: np.ndarray = np.round(away / length) * length
    return turns


def joined(degrees: np.ndarray) -> np.ndarray:
    """Polygons that jump from 180 to -180 degrees, with longitudes that go on above 180."""
    left, _, right, _ = shapely.bounds(degrees).T if len(degrees) else (np.zeros(0),) * 4
    across = right - left > 180
    if across.any():
        degrees = degrees.copy()
        degrees[across] = near(degrees[across], CRS.from_epsg(4326), 180.0)
    return degrees


def parted(degrees: np.ndarray) -> np.ndarray:
    """Polygons or points with longitudes from -180 to 180; a polygon across that meridian has parts
    (RFC 7946)."""
    result = degrees.copy()
    bounds = shapely.bounds(degrees)
    for index in np.flatnonzero((bounds[:, 2] > 180) | (bounds[:, 0] < -180)):
        if shapely.get_dimensions(degrees[index]) == 0:
            result[index] = near(degrees[index : index + 1], CRS.from_epsg(4326), 0.0)[0]
            continue
        parts = []
        for shift in (-360.0, 0.0, 360.0):
            here = shapely.box(-180 - shift, -90, 180 - shift, 90)
            cut = shapely.get_parts(shapely.intersection(degrees[index], here))
            cut = cut[shapely.get_type_id(cut) == shapely.GeometryType.POLYGON]
            parts += [shapely.affinity.translate(part, shift) for part in cut]
        result[index] = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return result
