# SPDX-License-Identifier: Apache-2.0
"""Geometries with their attributes as files."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from pyproj import CRS

from fieldfare.common.files import atomic_path

from ..rasters.writing import check_suffix
from .dateline import joined, parted
from .projecting import reproject

if TYPE_CHECKING:
    import geopandas as gpd

PARQUET = (".parquet", ".geoparquet")
SUFFIXES = (".gpkg", ".parquet", ".geojson", ".geoparquet")

CHANGED = "2000-01-01T00:00:00.000Z"
"""What a GeoPackage says of its last change, so that the same content gives the same bytes."""


def write_layer(
    frame: "gpd.GeoDataFrame",
    path: Path,
    layer: str,
    *,
    rounded: Callable[[np.ndarray], np.ndarray],
    kind: str = "Polygon",
) -> None:
    """Write a layer by the file's suffix: .gpkg, .parquet (GeoParquet 1.1) or .geojson.

    GeoJSON is in longitude and latitude (RFC 7946: a polygon across the 180th meridian has two
    parts), without CRS in the coordinates there are.

    Args:
        layer: its name.
        rounded: geometries in degrees as GeoJSON shall have them.
        kind: Polygon or Point.

    Raises:
        InputError: another suffix.
    """
    check_suffix("output", path, SUFFIXES)
    suffix = path.suffix.lower()
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        if suffix in PARQUET:
            frame.to_parquet(temporary, schema_version="1.1.0", write_covering_bbox=True)
        elif suffix == ".gpkg":
            _write_geopackage(frame, temporary, layer, kind)
        else:
            _write_geojson(frame, temporary, layer, kind, rounded)


def _write_geopackage(frame: "gpd.GeoDataFrame", target: Path, layer: str, kind: str) -> None:
    try:
        with _dated(CHANGED):
            frame.to_file(target, driver="GPKG", engine="pyogrio", layer=layer, geometry_type=kind)
    finally:
        for sibling in ("-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{target}{sibling}").unlink()


@contextlib.contextmanager
def _dated(moment: str) -> Iterator[None]:
    """Inside, GDAL takes this for the time."""
    import pyogrio

    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": moment})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _write_geojson(
    frame: "gpd.GeoDataFrame",
    target: Path,
    layer: str,
    kind: str,
    rounded: Callable[[np.ndarray], np.ndarray],
) -> None:
    options = {"driver": "GeoJSON", "engine": "pyogrio", "layer": layer}
    if frame.crs is None:
        frame.to_file(target, geometry_type=kind, **options)
        return
    import geopandas as gpd

    degrees = reproject(frame.geometry.to_numpy(), frame.crs, CRS.from_epsg(4326), joined)
    polygons = parted(rounded(degrees))
    several = bool((shapely.get_type_id(polygons) == shapely.GeometryType.MULTIPOLYGON).any())
    frame = frame.set_geometry(gpd.GeoSeries(polygons, index=frame.index, crs="EPSG:4326"))
    known = "Unknown" if several else kind
    frame.to_file(target, RFC7946="YES", geometry_type=known, promote_to_multi=False, **options)
