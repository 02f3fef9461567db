# SPDX-License-Identifier: Apache-2.0
"""Scenes on the ground: metres per pixel, the values a model sees, resampling to its pixel size."""

import itertools
import math
from pathlib import Path
from typing import TypeVar

import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from fieldfare.common.errors import InputError

from ...rasters.reading import Scene, ValueRange, open_raster

TOLERANCE = 0.03
"""A pixel size this close to the model's, as a share of it, is taken as equal."""

STRETCH = (0.5, 99.5)
"""Percentiles of a scene that is not uint8 which a model sees as 0 and 1."""

SAMPLED_BLOCKS = 256
"""How many blocks at most those percentiles are taken from."""

SIDE = 128
"""Side of such a block in pixels."""

Geometries = TypeVar("Geometries")


def ground_size(dataset: DatasetReader) -> tuple[float, float] | None:
    """Metres on the ground per pixel along rows and along columns of pixels: (x, y).

    Measured on the ellipsoid at the raster's centre, so that a Web-Mercator pixel is not taken at
    its nominal size. None without CRS or transform.
    """
    if dataset.crs is None or dataset.transform.is_identity:
        return None
    row, column = dataset.height / 2, dataset.width / 2
    corners = [dataset.transform * (column + x, row + y) for x, y in ((0, 0), (1, 0), (0, 1))]
    crs = CRS.from_user_input(dataset.crs)
    try:
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        points = [to_degrees.transform(x, y, errcheck=True) for x, y in corners]
    except Exception as error:  # a local or engineering CRS has no place on Earth
        raise InputError(f"{dataset.name}: its CRS has no place on Earth ({error})") from None
    geod = Geod(ellps="WGS84")
    sizes = [geod.inv(*points[0], *point)[2] for point in points[1:]]
    return sizes[0], sizes[1]


def value_range(scene: Scene, text: str | None) -> ValueRange:
    """The values a model sees as 0 and 1, one pair for the whole scene.

    Args:
        text: `LOW:HIGH`, or None for 0:255 where the type is uint8, 0:1 for float32 within it, else
            the percentiles STRETCH over all bands of up to 256 evenly spread blocks.

    Raises:
        InputError: an unreadable range, or no valid pixel.
    """
    if text is not None:
        return ValueRange.parse(text)
    if scene.dtype == np.uint8:
        return ValueRange(0, 255)
    samples = _samples(scene)
    if not samples.size:
        raise InputError(f"{scene.path}: every pixel is nodata; there is nothing to look at")
    low, high = (float(value) for value in np.percentile(samples, STRETCH))
    if scene.dtype.kind == "f" and samples.min() >= 0 and samples.max() <= 1:
        return ValueRange(0, 1)
    return ValueRange(low, high if high > low else low + 1)


def _samples(scene: Scene) -> np.ndarray:
    """Valid finite values of at most SAMPLED_BLOCKS blocks of SIDE x SIDE, evenly spread."""
    rows, columns = (math.ceil(length / SIDE) for length in (scene.height, scene.width))
    stride = max(1, math.ceil(math.sqrt(rows * columns / SAMPLED_BLOCKS)))
    down, across = (
        np.arange(stride // 2 if count > stride else 0, count, stride if count > stride else 1)
        for count in (rows, columns)
    )
    if len(down) < len(across):  # of a long thin scene the stride alone would leave more
        across = _thinned(across, SAMPLED_BLOCKS // len(down))
    else:
        down = _thinned(down, SAMPLED_BLOCKS // len(across))
    found = []
    for row, column in itertools.product(down.tolist(), across.tolist()):
        top, left = scene.top + row * SIDE, scene.left + column * SIDE
        here = (top, min(top + SIDE, scene.top + scene.height))
        there = (left, min(left + SIDE, scene.left + scene.width))
        values = scene.read(here, there)
        inside = values[scene.valid(values, here, there)]
        found.append(inside[np.isfinite(inside)])
    return np.concatenate(found)


def _thinned(positions: np.ndarray, most: int) -> np.ndarray:
    """At most so many of them, evenly spread."""
    if len(positions) <= most:
        return positions
    kept: np.ndarray = positions[((np.arange(most) + 0.5) * len(positions) / most).astype(int)]
    return kept


def placed(geometries: Geometries, transform: Affine) -> Geometries:
    """Geometries from pixels (x = column, y = row) to a raster's coordinates.

    With the inverse of its transform, the other way.

    Args:
        geometries: one shapely geometry, or an array of them.
    """
    a, b, c, d, e, f = transform[:6]

    def move(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        return np.column_stack((x * a + y * b + c, x * d + y * e + f))

    moved: Geometries = shapely.transform(geometries, move)
    return moved


def open_at(
    path: Path, gsd: float, bands: tuple[int, ...] | None, assumed: float | None
) -> tuple[Scene, tuple[float, float] | None, bool]:
    """Open a raster at a model's pixel size.

    Args:
        gsd: metres per pixel that the model was trained for.
        assumed: metres per pixel of a raster without CRS; that of the model when None.

    Returns:
        The scene, resampled on reading (bilinear, averaging where it becomes coarser) unless its
        pixels are within TOLERANCE of the model's size; its own metres per pixel (x, y), None where
        unknown; whether it is resampled.
    """
    dataset = open_raster(path)
    try:
        size = ground_size(dataset) or ((assumed, assumed) if assumed else None)
        ratios = (1.0, 1.0) if size is None else (size[0] / gsd, size[1] / gsd)
        if all(abs(ratio - 1) <= TOLERANCE for ratio in ratios):
            return Scene(path, bands, dataset=dataset), size, False
        resampled = _resampled(dataset, *ratios)
    except BaseException:
        dataset.close()
        raise
    return Scene(path, bands, dataset=resampled), size, True


def _resampled(dataset: DatasetReader, ratio_x: float, ratio_y: float) -> WarpedVRT:
    width = max(1, round(dataset.width * ratio_x))
    height = max(1, round(dataset.height * ratio_y))
    scale = Affine.scale(dataset.width / width, dataset.height / height)
    crs = dataset.crs or "EPSG:3857"  # GDAL warps within a plane; which one does not matter here
    return WarpedVRT(
        dataset,
        src_crs=crs,
        crs=crs,
        src_transform=dataset.transform,
        transform=dataset.transform * scale,
        width=width,
        height=height,
        # As in training (`table.LabelledScene.read`).
        resampling=Resampling.average if min(ratio_x, ratio_y) < 1 else Resampling.bilinear,
        add_alpha=not any(kind.name == "alpha" for kind in dataset.colorinterp),
        warp_mem_limit=64,
    )
