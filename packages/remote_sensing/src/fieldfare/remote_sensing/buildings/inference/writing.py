# SPDX-License-Identifier: Apache-2.0
"""Footprints as files."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import shapely
from pyproj import CRS

from fieldfare.common.files import atomic_path

from ...rasters.writing import check_suffix
from ..data.dateline import joined, parted
from .vectors import reproject, rounded_degrees

if TYPE_CHECKING:
    import geopandas as gpd

PARQUET = (".parquet", ".geoparquet")
SUFFIXES = (".gpkg", ".parquet", ".geojson", ".geoparquet")
LAYER = "footprints"

CHANGED = "2000-01-01T00:00:00.000Z"
"""What a GeoPackage says of its last change, so that the same footprints give the same bytes."""


def write_footprints(frame: "gpd.GeoDataFrame", path: Path) -> None:
    """Write a layer by the file's suffix: .gpkg, .parquet (GeoParquet 1.1) or .geojson.

    GeoJSON is in longitude and latitude (RFC 7946: a polygon across the 180th meridian has two
    parts), without CRS in the coordinates there are.

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
            _write_geopackage(frame, temporary)
        else:
            _write_geojson(frame, temporary)


def _write_geopackage(frame: "gpd.GeoDataFrame", target: Path) -> None:
    try:
        with _dated(CHANGED):
            frame.to_file(
                target, driver="GPKG", engine="pyogrio", layer=LAYER, geometry_type="Polygon"
            )
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


def _write_geojson(frame: "gpd.GeoDataFrame", target: Path) -> None:
    options = {"driver": "GeoJSON", "engine": "pyogrio", "layer": LAYER}
    if frame.crs is None:
        frame.to_file(target, geometry_type="Polygon", **options)
        return
    import geopandas as gpd

    degrees = reproject(frame.geometry.to_numpy(), frame.crs, CRS.from_epsg(4326), joined)
    rounded = parted(rounded_degrees(degrees))
    several = bool((shapely.get_type_id(rounded) == shapely.GeometryType.MULTIPOLYGON).any())
    frame = frame.set_geometry(gpd.GeoSeries(rounded, index=frame.index, crs="EPSG:4326"))
    kind = "Unknown" if several else "Polygon"
    frame.to_file(target, RFC7946="YES", geometry_type=kind, promote_to_multi=False, **options)
