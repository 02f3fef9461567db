# SPDX-License-Identifier: Apache-2.0
"""Geometries out of vector files that nobody vouches for: by formats that hold their own geometry.

GDAL goes by what is in a file: one named .geojson may be a list of other files or of addresses on
the network, and a GeoPackage may hold views that never end. So a file must begin as its name says,
and of a GeoPackage only tables are read. GML is read in memory, where GDAL finds no files beside it
and leaves none, and without the schema that it may name on the network.
"""

import contextlib
import re
import sqlite3
import tempfile
import xml.parsers.expat as expat
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError

from fieldfare.common.errors import InputError

JSON = (".geojson", ".json")
PARQUET = (".parquet", ".geoparquet")

FORMATS = {
    ".geojson": ("{", "GeoJSON:"),
    ".json": ("{", "GeoJSON:"),
    ".gpkg": ("SQLite format 3", ""),
    ".fgb": ("fgb", ""),
    ".shp": ("\x00\x00'\n", ""),
    ".kml": ("<", ""),
    ".gml": ("<", ""),
}
"""By suffix: what a file begins with, and what tells GDAL its driver, where it has such a word."""

ROOTS = {".kml": "kml", ".gml": "FeatureCollection"}
"""The outermost element of XML."""

POLYGONAL = (int(shapely.GeometryType.POLYGON), int(shapely.GeometryType.MULTIPOLYGON))


def read_polygons(
    path: Path, keep: str | None = None, layer: str | None = None
) -> tuple[gpd.GeoDataFrame, list[str]]:
    """Read a vector file's polygons, repaired, each part of a multipolygon on its own.

    Args:
        keep: a column to keep where there is one.
        layer: of a file with several.

    Returns:
        The polygons in the file's own CRS, and what had to be done, in words.

    Raises:
        InputError: missing, not a vector file, several layers to choose from, or no polygons among
            its geometries.
    """
    frame = read_frame(path, layer)
    messages = []
    geometry = frame.geometry.to_numpy()
    empty = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    if empty.any():
        messages.append(f"{path}: {int(empty.sum())} empty geometries left out")
    rows = np.flatnonzero(~empty)
    parts, owner = _polygons(shapely.force_2d(geometry[rows]))
    others = len(rows) - len(np.unique(owner))
    if others and not len(parts):
        raise InputError(f"{path}: holds other geometries than polygons; export polygons only")
    if others:
        messages.append(f"{path}: {others} geometries that are no polygons left out")
    broken = ~shapely.is_valid(parts)
    if broken.any():
        parts[broken] = shapely.make_valid(parts[broken], method="structure", keep_collapsed=False)
        messages.append(f"{path}: {int(broken.sum())} invalid geometries repaired")
        parts, again = _polygons(parts)
        owner = owner[again]
    whole = shapely.area(parts) > 0
    columns = {}
    if keep in frame.columns:
        columns[keep] = frame[keep].to_numpy()[rows[owner[whole]]]
    return gpd.GeoDataFrame(columns, geometry=parts[whole], crs=frame.crs), messages


def _polygons(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons among geometries and all their parts, and the index of each one's owner."""
    owner = np.arange(len(geometry))
    while (shapely.get_num_geometries(geometry) != 1).any() or (
        shapely.get_type_id(geometry) > int(shapely.GeometryType.POLYGON)
    ).any():
        geometry, index = shapely.get_parts(geometry, return_index=True)
        owner = owner[index]
    kept = shapely.get_type_id(geometry) == int(shapely.GeometryType.POLYGON)
    kept &= ~shapely.is_empty(geometry)
    return geometry[kept], owner[kept]


def read_frame(path: Path, layer: str | None = None) -> gpd.GeoDataFrame:
    """Read a vector file as it is.

    Args:
        layer: of a file with several.

    Raises:
        InputError: missing, not a vector file, without geometries, or several layers.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    suffix = path.suffix.lower()
    try:
        if suffix in PARQUET:
            frame = gpd.read_parquet(path)
        else:
            prefix = _checked(path, suffix)
            with _plainly_named(path) as plain:
                name: str | bytes = f"{prefix}{plain}"
                if suffix == ".gml":
                    pyogrio.set_gdal_config_options({"GML_DOWNLOAD_SCHEMA": False})
                    name = path.read_bytes()
                frame = pyogrio.read_dataframe(name, layer=_layer(path, name, layer))
    except (DataSourceError, DataLayerError, ValueError, OSError, sqlite3.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable vector file ({error})") from None
    if not isinstance(frame, gpd.GeoDataFrame):
        raise InputError(f"{path}: holds no geometries")
    return frame


def _checked(path: Path, suffix: str) -> str:
    """What tells GDAL the driver, once the file begins as its suffix says."""
    if suffix not in FORMATS:
        known = ", ".join("*" + name for name in (*FORMATS, *PARQUET))
        raise InputError(f"{path}: holds no geometries by its name; convert it to one of {known}")
    begin, prefix = FORMATS[suffix]
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file in it")
    with open(path, "rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        if suffix == ".shp":
            file.seek(0)
            head = file.read(16)
    if not head.startswith(begin.encode("latin-1")):
        raise InputError(f"{path}: not a readable vector file (its content is no {suffix[1:]})")
    if suffix in ROOTS:
        _check_root(path, ROOTS[suffix])
    return prefix


def _check_root(path: Path, wanted: str) -> None:
    """XML whose outermost element is the wanted one, and that defines no entities.

    Raises:
        InputError: another one, or no XML.
    """
    roots: list[str] = []

    def refuse(*about: object) -> None:
        raise InputError(f"{path}: has a DOCTYPE; remove that line first")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda name, _: roots.append(name)
    try:
        with open(path, "rb") as file:
            while not roots and (some := file.read(4096)):
                parser.Parse(some)
    except expat.ExpatError as error:
        raise InputError(f"{path}: not a readable vector file ({error})") from None
    found = roots[0].rpartition(" ")[2] if roots else "none"
    if found != wanted:
        raise InputError(
            f"{path}: not a readable vector file (its outermost element is {found}, not {wanted})"
        )


@contextlib.contextmanager
def _plainly_named(path: Path) -> Iterator[Path]:
    """The file, by another name where its own has signs that are taken for those of an address."""
    if not re.search(r"[;!?#:*]", str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in path.parent.iterdir():  # a shapefile has several
            if part.stem == path.stem:
                Path(folder, f"labels{part.suffix}").symlink_to(part.absolute())
        yield Path(folder, f"labels{path.suffix}")


def _layer(path: Path, name: str | bytes, wanted: str | None) -> str | None:
    """The layer to read: the wanted one, or the only one that may hold polygons."""
    layers = _tables(path) if path.suffix.lower() == ".gpkg" else None
    if layers is None:
        layers = {str(found): str(kind) for found, kind in pyogrio.list_layers(name)}
    if path.suffix.lower() == ".kml":  # folders; the document itself is one, mostly empty
        counts = {layer: pyogrio.read_info(name, layer=layer)["features"] for layer in layers}
        layers = {layer: kind for layer, kind in layers.items() if counts[layer]} or layers
    names = ", ".join(layers)
    if wanted is not None and len(layers) > 1:
        if wanted not in layers:
            raise InputError(f"{path}: has no layer {wanted}; it has {names}")
        return wanted
    if not layers:
        raise InputError(f"{path}: holds no table of geometries")
    if len(layers) > 1:
        raise InputError(f"{path}: has several layers ({names}); choose one with --layer NAME")
    return next(iter(layers))


def _tables(path: Path) -> dict[str, str]:
    """Tables of geometries in a GeoPackage and their kinds; views are not run.

    Raises:
        InputError: a layer is a view.
    """
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        kinds = {
            str(name).lower(): (str(kind), str(sql or ""))
            for name, kind, sql in db.execute("SELECT name, type, sql FROM sqlite_master")
        }
        if kinds.get("gpkg_geometry_columns", ("",))[0] != "table":
            raise InputError(f"{path}: not a readable vector file (no GeoPackage of geometries)")
        rows = db.execute(
            "SELECT table_name, geometry_type_name FROM gpkg_geometry_columns LIMIT 1000"
        ).fetchall()
    found = {}
    for name, geometry in rows:
        kind, sql = kinds.get(str(name).lower(), ("", ""))
        if kind == "view" or sql.upper().startswith("CREATE VIRTUAL"):
            raise InputError(f"{path}: its layer {name} is a view; export it as a table")
        if kind == "table":
            found[str(name)] = str(geometry)
    return found
