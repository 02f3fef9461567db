# SPDX-License-Identifier: Apache-2.0
"""Polygons from one coordinate system to another, and metres to work in."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import shapely
from pyproj import CRS, Transformer

from fieldfare.common.errors import InputError


def metric_crs(crs: CRS | None, bounds: Sequence[float]) -> CRS | None:
    """The UTM zone (WGS 84) of the middle of some bounds; None without CRS.

    Args:
        bounds: left, bottom, right, top in the CRS.

    Raises:
        InputError: the middle has no place on Earth.
    """
    if crs is None:
        return None
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    left, bottom, right, top = bounds
    longitude, latitude = to_degrees.transform((left + right) / 2, (bottom + top) / 2)
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        raise InputError(f"{CRS.from_user_input(crs).name}: the data lie outside where it is valid")
    zone = int((longitude + 180) // 6) % 60 + 1
    return CRS.from_epsg((32600 if latitude >= 0 else 32700) + zone)


def reproject(
    polygons: np.ndarray,
    source: CRS,
    target: CRS,
    settle: Callable[[np.ndarray], np.ndarray] = lambda moved: moved,
) -> np.ndarray:
    """Polygons from one CRS to another, x before y; one that turns invalid is repaired.

    Args:
        settle: what is done before that, such as joining what the 180th meridian parts.
    """
    if not len(polygons) or source == target:
        return polygons
    step = Transformer.from_crs(source, target, always_xy=True)
    moved = shapely.transform(
        polygons, lambda xy: np.column_stack(step.transform(xy[:, 0], xy[:, 1]))
    )
    return repair(settle(moved))


def repair(polygons: np.ndarray) -> np.ndarray:
    """Valid polygons of the same number: an invalid one becomes the largest part of its repair,
    one without area an empty polygon."""
    broken = np.flatnonzero(~shapely.is_valid(polygons))
    if not broken.size:
        return polygons
    polygons = polygons.copy()
    for index in broken:
        fixed = shapely.make_valid(polygons[index], method="structure", keep_collapsed=False)
        polygons[index] = largest(fixed)
    return polygons


def largest(geometry: shapely.Geometry) -> shapely.Polygon:
    """The largest polygon of a geometry, empty if there is none."""
    parts = shapely.get_parts(geometry)
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return parts[np.argmax(shapely.area(parts))] if len(parts) else shapely.Polygon()
