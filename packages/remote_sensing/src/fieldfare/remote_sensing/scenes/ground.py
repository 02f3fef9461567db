# SPDX-License-Identifier: Apache-2.0
"""Scenes on the ground: metres per pixel, the values a model sees, resampling to its pixel size."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import shapely
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from fieldfare.common.errors import InputError

from ..rasters.georeference import Georeference, georeference_of
from ..rasters.opening import open_raster
from ..rasters.reading import Scene, ValueRange

TOLERANCE = 0.03
"""A pixel size this close to the model's, as a share of it, is taken as equal."""

STRETCH = (0.5, 99.5)
"""Percentiles of a scene that is not uint8 which a model sees as 0 and 1."""

COARSE, COARSEST = 2.0, 10.0
"""Times the model's pixel size from which a warning is due, and above which a scene is refused."""

SAMPLED_BLOCKS = 256
"""How many blocks at most those percentiles are taken from."""

SIDE = 128
"""Side of such a block in pixels."""

Geometries = TypeVar("Geometries")


def ground_size(dataset: DatasetReader) -> tuple[float, float] | None:
    """Metres on the ground per pixel along rows and along columns of pixels: (x, y).

    Measured on the ellipsoid at the raster's centre, so that a Web-Mercator pixel is not taken at
    its nominal size; in a plane of its own by that plane's unit. None where unknown.
    """
    place = georeference_of(dataset)
    if place.crs is None:
        if place.unit is None:
            return None
        return place.pixel[0] * place.unit, place.pixel[1] * place.unit
    row, column = dataset.height / 2, dataset.width / 2
    corners = [place.transform * (column + x, row + y) for x, y in ((0, 0), (1, 0), (0, 1))]
    crs = CRS.from_user_input(place.crs)
    try:
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        points = [to_degrees.transform(x, y, errcheck=True) for x, y in corners]
    except ProjError as error:
        raise InputError(f"{dataset.name}: does not lie where its CRS is valid ({error})") from None
    geod = Geod(ellps="WGS84")
    sizes = [geod.inv(*points[0], *point)[2] for point in points[1:]]
    return sizes[0], sizes[1]


def value_range(scene: Scene, text: str | None) -> ValueRange:
    """The values a model sees as 0 and 1, one pair for the whole scene.

    Args:
        text: `LOW:HIGH`, or None for 0:255 where the type is uint8, 0:1 for float32 within it, else
            the percentiles STRETCH over all bands of up to 256 evenly spread blocks.

    A scene without valid pixels has 0:1.

    Raises:
        InputError: an unreadable range.
    """
    if text is not None:
        return ValueRange.parse(text)
    if scene.dtype == np.uint8:
        return ValueRange(0, 255)
    samples = _samples(scene)
    if not samples.size:
        return ValueRange(0, 1)
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
        assumed: metres per pixel of a raster without a place on Earth; that of its own plane, or
            of the model, when None.

    Returns:
        The scene, resampled on reading (bilinear, averaging where it becomes coarser) unless its
        pixels are within TOLERANCE of the model's size; its own metres per pixel (x, y), None where
        unknown; whether it is resampled. `scene.place.unit` is metres of a unit of its coordinates
        where it has no place on Earth.
    """
    dataset = open_raster(path)
    try:
        place, size = georeference_of(dataset), ground_size(dataset)
        if place.crs is None and assumed:
            size = (assumed, assumed)
        if place.crs is None and size is not None:
            unit = math.sqrt(size[0] * size[1] / abs(place.transform.determinant))
            place = replace(place, unit=unit)
        ratios = (1.0, 1.0) if size is None else (size[0] / gsd, size[1] / gsd)
        if all(abs(ratio - 1) <= TOLERANCE for ratio in ratios):
            return Scene(path, bands, dataset=dataset, place=_own(place, dataset)), size, False
        resampled = _resampled(dataset, place, *ratios)
    except BaseException:
        dataset.close()
        raise
    across, down = dataset.width / resampled.width, dataset.height / resampled.height
    placed_there = replace(place, transform=place.transform * Affine.scale(across, down))
    return Scene(path, bands, dataset=resampled, place=placed_there), size, True


def metres_per_unit(scene: Scene, gsd: float) -> float | None:
    """Metres of a unit of a scene's coordinates; None on Earth.

    Args:
        gsd: metres per pixel of a scene of which nothing is known.
    """
    if scene.crs is not None:
        return None
    if scene.place is not None and scene.place.unit is not None:
        return scene.place.unit
    transform = scene.place.transform if scene.place else scene.dataset.transform
    return gsd / math.sqrt(abs(transform.determinant))


def _own(place: Georeference, dataset: DatasetReader) -> Georeference | None:
    """None where the dataset says the same."""
    return None if place.crs is not None and dataset.crs == place.crs else place


def _resampled(
    dataset: DatasetReader, place: Georeference, ratio_x: float, ratio_y: float
) -> WarpedVRT:
    width = max(1, round(dataset.width * ratio_x))
    height = max(1, round(dataset.height * ratio_y))
    scale = Affine.scale(dataset.width / width, dataset.height / height)
    # GDAL warps within a plane; which one does not matter, so pixels do where there is none.
    on_earth = _own(place, dataset) is None
    crs = dataset.crs if on_earth else "EPSG:3857"
    transform = dataset.transform if on_earth else Affine.identity()
    return WarpedVRT(
        dataset,
        src_crs=crs,
        crs=crs,
        src_transform=transform,
        transform=transform * scale,
        width=width,
        height=height,
        # As in training (`table.LabelledScene.read`).
        resampling=Resampling.average if min(ratio_x, ratio_y) < 1 else Resampling.bilinear,
        add_alpha=not any(kind.name == "alpha" for kind in dataset.colorinterp),
        warp_mem_limit=64,
    )
