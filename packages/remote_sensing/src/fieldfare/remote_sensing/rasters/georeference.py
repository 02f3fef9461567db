# SPDX-License-Identifier: Apache-2.0
"""Where a raster lies: on Earth, in a plane of its own, or in its pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps

from fieldfare.common.errors import InputError

BENT = 1.0
"""Pixels by which ground control points may miss a plane grid."""

APART = 0.5
"""Pixels that grids of one place may lie apart."""


@dataclass(frozen=True)
class Georeference:
    """From pixels to coordinates.

    Attributes:
        crs: of a place on Earth; None in a plane of its own.
        transform: from pixels (x = column, y = row).
        unit: metres of a unit of a plane of its own; None where unknown.
    """

    crs: CRS | None
    transform: Affine
    unit: float | None = None

    @property
    def pixel(self) -> tuple[float, float]:
        """Units of a pixel along rows and along columns of pixels."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)


def georeference_of(dataset: DatasetReader) -> Georeference:
    """Where a raster lies, by its transform or by ground control points.

    Raises:
        InputError: ground control points that lie on no plane grid, or rational polynomials alone:
            such a raster must be warped first.
    """
    transform, crs, name = dataset.transform, dataset.crs, _name(dataset)
    points, points_crs = dataset.gcps
    if transform.is_identity and points:
        transform, crs = _fitted(points, name), points_crs
    elif transform.is_identity and dataset.rpcs:
        raise InputError(
            f"{name}: is placed by rational polynomials (RPC) alone; orthorectify it first "
            "(gdalwarp -rpc -t_srs EPSG:CODE)"
        )
    if crs is None or transform.is_identity:
        return Georeference(None, transform)
    if crs.is_geographic or crs.is_projected:
        return Georeference(crs, transform)
    return Georeference(None, transform, _unit(crs))


def _unit(crs: CRS) -> float | None:
    """Metres of a unit of a local coordinate system, if it says so."""
    factors = {axis.unit_conversion_factor for axis in ProjCRS.from_user_input(crs).axis_info[:2]}
    factor = factors.pop() if len(factors) == 1 else 0.0
    return factor if 0 < factor < math.inf else None


def _name(dataset: DatasetReader) -> str:
    """For messages; that of a decoded palette is a whole document."""
    return "the scene" if dataset.name.startswith("<") else str(dataset.name)


def _fitted(points: Sequence[GroundControlPoint], name: str) -> Affine:
    if len(points) < 3:
        raise InputError(f"{name}: has {len(points)} ground control points; 3 are needed")
    transform = from_gcps(points)
    if abs(transform.determinant) == 0:
        raise InputError(f"{name}: its ground control points lie on one line; warp it first")
    back = ~transform
    missed = max(float(np.hypot(*np.subtract(back * (p.x, p.y), (p.col, p.row)))) for p in points)
    if missed > BENT:
        raise InputError(
            f"{name}: its ground control points miss a plane grid by {missed:.1f} pixels; "
            "warp it first (gdalwarp -tps -t_srs EPSG:CODE)"
        )
    return transform


def distance(one: Georeference, other: Georeference, size: tuple[int, int]) -> str:
    """How far two grids of one size lie apart, in words; empty where they are one, or unknown.

    Of two coordinate systems the corners are compared on the ground: one system may be written in
    several ways.

    Args:
        size: rows and columns.
    """
    if one.transform.is_identity or other.transform.is_identity:
        return ""
    if (one.crs is None) != (other.crs is None):
        return ""
    corners = [(x, y) for x in (0, size[1]) for y in (0, size[0])]
    there = [one.transform * corner for corner in corners]
    beyond = ""
    if one.crs is not None and other.crs is not None and one.crs != other.crs:
        beyond = " in another coordinate system"
        try:
            ours, theirs = (ProjCRS.from_user_input(crs) for crs in (one.crs, other.crs))
            change = Transformer.from_crs(ours, theirs, always_xy=True)
            there = [change.transform(x, y, errcheck=True) for x, y in there]
        except ProjError:
            return f"elsewhere{beyond}"
    back = ~other.transform
    away = max(
        float(np.hypot(*np.subtract(back * point, corner)))
        for point, corner in zip(there, corners, strict=True)
    )
    return f"{away:.1f} pixels away{beyond}" if away > APART else ""
