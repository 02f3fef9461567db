# SPDX-License-Identifier: Apache-2.0
"""Small towns made on the spot: bright roofs on dark ground, with their outlines."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyproj
import rasterio
import shapely
from rasterio import Affine
from rasterio.enums import ColorInterp
from sample_rasters import write_raster

from fieldfare.remote_sensing.buildings.data.table import LabelledScene, read_table

KAMPALA = (32.6, 0.35)
"""Longitude and latitude."""

GROUND, ROOF = 60, 200
"""Grey levels; times 16 in wider integers, over 255 in float32."""

Box = tuple[float, float, float, float]
"""Row, column, height, width in pixels."""


@dataclass(frozen=True)
class Town:
    """Files of a made-up town and what is in them.

    Attributes:
        boxes: row, column, height, width of each roof in pixels.
        shape: rows and columns of the image.
        transform: of the image.
    """

    image: Path
    labels: Path
    boxes: tuple[Box, ...]
    shape: tuple[int, int]
    transform: Affine

    @property
    def mask(self) -> np.ndarray:
        """(rows, columns) bool: a pixel is a building where a box covers its centre."""
        return draw_boxes(self.shape, self.boxes)


def draw_boxes(shape: tuple[int, int], boxes: Iterable[Box]) -> np.ndarray:
    """(rows, columns) bool: where a box covers the centre of a pixel."""
    rows, columns = (np.arange(length) + 0.5 for length in shape)
    mask = np.zeros(shape, bool)
    for row, column, height, width in boxes:
        mask |= np.outer(
            (rows > row) & (rows < row + height), (columns > column) & (columns < column + width)
        )
    return mask


def street_grid(shape: tuple[int, int], seed: int = 0) -> list[Box]:
    """One house in each block of 40 x 40 pixels, all unlike, none touching another."""
    rng = np.random.default_rng(seed)
    houses = []
    for row in range(0, shape[0] - 39, 40):
        for column in range(0, shape[1] - 39, 40):
            height, width = rng.integers(12, 33, 2)
            top, left = row + rng.integers(2, 39 - height), column + rng.integers(2, 39 - width)
            houses.append((int(top), int(left), int(height), int(width)))
    return houses


def transform_at(
    crs: str | None, gsd: float, shape: tuple[int, int], centre: tuple[float, float]
) -> Affine:
    """North-up pixels of about `gsd` metres on the ground; the identity without CRS."""
    if crs is None:
        return Affine.identity()
    to_crs = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_crs.transform(*centre)
    stretch = math.cos(math.radians(centre[1]))
    side_x = side_y = gsd
    if pyproj.CRS.from_user_input(crs).is_geographic:
        side_y = gsd / 111_320
        side_x = side_y / stretch
    elif crs == "EPSG:3857":
        side_x = side_y = gsd / stretch
    return Affine(side_x, 0, x - side_x * shape[1] / 2, 0, -side_y, y + side_y * shape[0] / 2)


def write_town(
    folder: Path,
    *,
    size: tuple[int, int] = (256, 256),
    crs: str | None = "EPSG:32636",
    gsd: float = 0.15,
    dtype: str = "uint8",
    bands: int = 3,
    nodata: float | None = None,
    alpha: bool = False,
    missing: Box | None = None,
    houses: Sequence[Box] | None = None,
    centre: tuple[float, float] = KAMPALA,
    name: str = "town",
    label_crs: str | None = "",
    label_format: str = "geojson",
) -> Town:
    """Write an image and the outlines of its roofs.

    Args:
        size: rows, columns.
        gsd: metres per pixel on the ground, about (exact in UTM).
        missing: a part set to `nodata`, and transparent with `alpha`.
        houses: a `street_grid` when None; fractions of a pixel are allowed.
        label_crs: that of the image when empty; None writes none (not as GeoJSON, which has one).
        label_format: suffix of the label file: geojson, gpkg, parquet, shp.
    """
    folder.mkdir(parents=True, exist_ok=True)
    boxes = tuple(street_grid(size) if houses is None else houses)
    transform = transform_at(crs, gsd, size, centre)
    noise = np.random.default_rng(1).integers(-8, 9, (bands, *size))
    grey = np.where(draw_boxes(size, boxes), ROOF, GROUND) + noise
    values = {"uint8": grey, "float32": grey / 255}.get(dtype, grey * 16).astype(dtype)
    solid = ~draw_boxes(size, [missing] if missing else [])
    if nodata is not None:
        values[:, ~solid] = nodata
    if alpha:
        opaque = np.iinfo(dtype).max if dtype != "float32" else 255
        values = np.concatenate([values, (solid * opaque).astype(dtype)[None]])
    image = write_raster(
        folder / f"{name}.tif",
        values,
        crs=crs,
        transform=transform,
        nodata=nodata,
        photometric="RGB" if bands == 3 else "MINISBLACK",  # else GDAL takes a fourth for alpha
    )
    if alpha:
        mark_alpha(image, bands)
    labels = write_labels(
        folder / f"{name}.{label_format}",
        [shapely.box(c, r, c + w, r + h) for r, c, h, w in boxes],
        transform,
        crs,
        crs if label_crs == "" else label_crs,
    )
    return Town(image, labels, boxes, size, transform)


def write_labels(
    path: Path,
    polygons: Sequence[shapely.Geometry],
    transform: Affine | None = None,
    crs: str | None = None,
    label_crs: str | None = None,
) -> Path:
    """Write polygons in pixels as a vector file.

    Args:
        transform, crs: of the raster they lie on; neither for pixel coordinates.
        label_crs: of the file; without it the numbers are written as they are in `crs`.
    """
    a = transform or Affine.identity()
    matrix = (a.a, a.b, a.d, a.e, a.c, a.f)
    placed = [shapely.affinity.affine_transform(polygon, matrix) for polygon in polygons]
    frame = gpd.GeoDataFrame({"kind": ["house"] * len(placed)}, geometry=placed, crs=crs)
    if label_crs is None:
        frame = frame.set_crs(None, allow_override=True)
    elif crs is not None:
        frame = frame.to_crs(label_crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    return path


def mark_alpha(image: Path, band: int) -> None:
    """Say of the band after `band` that it is alpha."""
    with rasterio.open(image, "r+") as dataset:
        names = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        known = names[:band] if band <= 3 else (*names, *[ColorInterp.undefined] * (band - 3))
        dataset.colorinterp = (*known, ColorInterp.alpha)


def write_table(path: Path, *rows: dict[str, object]) -> Path:
    """A table of scenes; the columns are those of the rows, in order of appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(str(row.get(name, "")) for name in columns) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n", encoding="utf-8")
    return path


def row(town: Town, split: str, **more: object) -> dict[str, object]:
    """A row of the table for a town; the table must lie in the folder of its image or above."""
    return {"image": town.image, "labels": town.labels, "split": split, **more}


def scenes_of(folder: Path, *rows: dict[str, object], bands: int = 3) -> list[LabelledScene]:
    """The scenes of a table with these rows, written into the folder."""
    return read_table(write_table(folder / "scenes.csv", *rows), bands=bands)[0]
