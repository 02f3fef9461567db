# SPDX-License-Identifier: Apache-2.0
"""From a raster of probabilities to building footprints.

The thresholded raster is polygonised by GDAL over its whole extent, from disk and row by row, so
that memory does not depend on its size and no tile leaves a seam. Everything else looks at one
connected region at a time.
"""

import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.features
import shapely
from pyproj import CRS
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ...rasters.opening import GDAL_CACHE_MB, open_raster
from ...scenes.ground import ground_size, placed
from ...vectors.dateline import near
from ...vectors.projecting import largest, metric_crs, reproject
from .regularise import regularise
from .vectors import fill_holes, part_overlaps

if TYPE_CHECKING:
    import geopandas as gpd

FULL, MISSING = 250, 255
"""Levels of a probability raster: FULL is 1, MISSING is no data."""

STRIP = 512
"""Rows that are thresholded at a time."""

LARGEST = 16_000_000
"""Pixels of the box around a region above which it is left in one piece, for memory's sake."""

STRIP_PIXELS = 4_000_000
"""Pixels read at a time of a region in one piece."""

NOISE = 1e-6
"""Pixels beyond the border that are an error of rounding."""

TOLERANCE = 2.5
"""Pixels that an outline may be moved by, roughly."""


@dataclass(frozen=True)
class FootprintSettings:
    """How outlines are drawn.

    Attributes:
        threshold: of the building probability, 0 to 1.
        min_area: smaller footprints are left out, m2.
        max_hole: smaller holes are filled, m2.
        regularise: square the outlines.
        split: part touching roofs along the predicted edges, where the raster has them.
    """

    threshold: float = 0.5
    min_area: float = 5.0
    max_hole: float = 5.0
    regularise: bool = True
    split: bool = True


@dataclass(frozen=True)
class Region:
    """One building in pixel coordinates, with its mean probability and whether it is cut off."""

    polygon: shapely.Polygon
    confidence: float
    touches_edge: bool


def extract(
    probability: Path,
    settings: FootprintSettings,
    *,
    gsd: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> "gpd.GeoDataFrame":
    """Outline the buildings of a probability raster.

    Args:
        probability: tiled uint8 raster: band 1 the building probability, band 2, if there is one,
            that of edges. 0 to FULL is 0 to 1; MISSING is no data.
        gsd: metres per unit of the coordinates of a raster without CRS.
        progress: (outlines done, in all).

    Returns:
        Columns id (1 to n, from the top left), area_m2, perimeter_m, confidence (mean probability
        inside), orientation (of the longer side of the smallest rectangle around it, degrees
        clockwise from grid north, 0 to 180), touches_edge (cut by the raster's border or by missing
        data) and geometry: valid Polygons without overlaps in the raster's CRS.
    """
    import geopandas as gpd

    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB * 2**20), open_raster(probability) as source:
        ground = _Ground.of(source, gsd)
        pixel = ground.pixel(source)
        least = settings.min_area / pixel**2
        regions = list(_regions(source, settings, least, progress))
    regions.sort(key=lambda region: (region.polygon.bounds[1], region.polygon.bounds[0]))
    polygons = ground.metres(np.array([region.polygon for region in regions], object))
    polygons = fill_holes(polygons, settings.max_hole)
    if settings.max_hole > settings.min_area:
        polygons = part_overlaps(polygons)  # a hole may have held a building
    kept = np.flatnonzero(shapely.area(polygons) >= settings.min_area)
    polygons, regions = polygons[kept], [regions[index] for index in kept]
    if settings.regularise:
        polygons = regularise(polygons, TOLERANCE * pixel)
    polygons, placed_there = ground.coordinates(polygons)
    return gpd.GeoDataFrame(
        {
            "id": np.arange(1, len(regions) + 1),
            "area_m2": shapely.area(polygons).round(2),
            "perimeter_m": shapely.length(polygons).round(2),
            "confidence": np.array([r.confidence for r in regions], np.float64).round(4),
            "orientation": orientation(polygons).round(1) % 180,
            "touches_edge": np.array([r.touches_edge for r in regions], bool),
        },
        geometry=placed_there,
        crs=ground.crs,
    )


@dataclass(frozen=True)
class _Ground:
    """The way from a raster's pixels to metres and back to its coordinates.

    Attributes:
        unit: metres of a unit of the coordinates where there is no CRS.
        size: width and height in pixels.
    """

    transform: Affine
    crs: CRS | None
    metric: CRS | None
    unit: float
    size: tuple[int, int]

    @classmethod
    def of(cls, source: DatasetReader, gsd: float | None) -> "_Ground":
        crs = CRS.from_user_input(source.crs) if source.crs else None
        if crs is None and gsd is None:
            raise ValueError(f"{source.name}: has no CRS, so gsd must be given")
        metric = metric_crs(crs, source.bounds)
        return cls(source.transform, crs, metric, gsd or 1.0, (source.width, source.height))

    def pixel(self, source: DatasetReader) -> float:
        """Side in metres of a square as large as a pixel."""
        size = ground_size(source)
        if size is None:
            return self.unit * math.sqrt(abs(self.transform.determinant))
        return math.sqrt(size[0] * size[1])

    @property
    def scale(self) -> np.ndarray:
        """Metres of a unit along x and y; y of a plain picture grows downwards, bearings do not."""
        return np.array([1, -1 if self.transform.determinant > 0 else 1]) * self.unit

    def metres(self, polygons: np.ndarray) -> np.ndarray:
        """From pixels (x = column, y = row)."""
        here = placed(polygons, self.transform)
        if self.crs is None or self.metric is None:
            metres: np.ndarray = shapely.transform(here, lambda xy: xy * self.scale)
            return metres
        return reproject(here, self.crs, self.metric)

    def coordinates(self, polygons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From metres to the raster's CRS, cut at its border: in metres again, and there."""
        if self.crs is None or self.metric is None:
            here: np.ndarray = shapely.transform(polygons, lambda xy: xy / self.scale)
        else:
            middle, _ = self.transform * (self.size[0] / 2, self.size[1] / 2)
            here = reproject(
                polygons, self.metric, self.crs, lambda moved: near(moved, self.crs, middle)
            )
        region = placed(shapely.box(0, 0, *self.size), self.transform)
        noise = NOISE * math.sqrt(abs(self.transform.determinant))
        across = np.flatnonzero(~shapely.covers(shapely.buffer(region, noise), here))
        if across.size:
            here, polygons = here.copy(), polygons.copy()
            here[across] = [largest(cut) for cut in shapely.intersection(here[across], region)]
            polygons[across] = self.metres(placed(here[across], ~self.transform))
        if self.transform.is_rectilinear:
            low, high = np.reshape(region.bounds, (2, 2))
            here = shapely.transform(here, lambda xy: np.clip(xy, low, high))
        return polygons, here


def orientation(polygons: np.ndarray) -> np.ndarray:
    """Bearing of the longer side of the smallest rectangle around polygons, degrees, 0 to 180."""
    bearings = np.zeros(len(polygons))
    for index, box in enumerate(shapely.minimum_rotated_rectangle(polygons)):
        corners = shapely.get_coordinates(box)[:3]
        if len(corners) == 3:
            sides = np.diff(corners, axis=0)
            longer = sides[np.argmax(np.hypot(sides[:, 0], sides[:, 1]))]
            bearings[index] = np.degrees(np.arctan2(longer[0], longer[1])) % 180
    return bearings


def _regions(
    source: DatasetReader,
    settings: FootprintSettings,
    least: float,
    progress: Callable[[int, int], None],
) -> Iterator[Region]:
    """Buildings of at least `least` pixels, touching ones parted."""
    with tempfile.TemporaryDirectory() as folder:
        mask = Path(folder) / "mask.tif"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            _threshold(source, settings.threshold, mask)
            with rasterio.open(mask) as drawn:
                band = rasterio.band(drawn, 1)
                shapes = rasterio.features.shapes(band, mask=band, transform=Affine.identity())
                drawn_shapes = (_polygon(geometry) for geometry, _ in shapes)
                outlines = [outline for outline in drawn_shapes if outline.area >= least]
    for done, outline in enumerate(outlines, start=1):
        yield from _parts(source, outline, settings, least)
        progress(done, len(outlines))
    if not outlines:
        progress(0, 0)


def _threshold(source: DatasetReader, threshold: float, target: Path) -> None:
    """Write the mask of buildings, 0 and 1, strip by strip."""
    profile = {
        "driver": "GTiff",
        "height": source.height,
        "width": source.width,
        "count": 1,
        "dtype": "uint8",
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
        "blockysize": min(STRIP, source.height),
    }
    with rasterio.open(target, "w", **profile) as sink:
        for top in range(0, source.height, STRIP):
            window = Window(0, top, source.width, min(STRIP, source.height - top))
            levels = source.read(1, window=window)
            mask = (levels >= threshold * FULL) & (levels != MISSING)
            sink.write(mask.astype(np.uint8), 1, window=window)


def _parts(
    source: DatasetReader, outline: shapely.Polygon, settings: FootprintSettings, least: float
) -> Iterator[Region]:
    """One connected region, parted where roofs touch; one in one piece is read strip by strip."""
    left, top, right, bottom = (int(side) for side in outline.bounds)
    columns, step = (left, right), max(1, STRIP_PIXELS // (right - left))
    numbers, outlines = None, {1: outline}
    if settings.split and source.count > 1 and (right - left) * (bottom - top) <= LARGEST:
        from .splitting import split

        edge = source.read(2, window=Window.from_slices((top, bottom), columns))
        inside = _drawn(outline, (top, bottom), columns) > 0
        numbers = split(inside, edge / np.float32(FULL), least)
        if numbers.max() > 1:
            outlines = _outlines(numbers, left, top)
    sums = np.zeros((3, max(outlines) + 1))
    for first in range(top, bottom, step):
        rows = (first, min(first + step, bottom))
        if numbers is None:
            here = _drawn(outline, rows, columns).ravel()
        else:
            here = numbers[first - top : rows[1] - top].ravel()
        for total, values in zip(sums, (None, *_levels(source, rows, columns)), strict=True):
            weights = None if values is None else values.ravel()
            total += np.bincount(here, weights, minlength=len(total))
    for number, polygon in outlines.items():
        pixels, level, cut = sums[:, number]
        yield Region(polygon, level / pixels / FULL, bool(cut))


def _drawn(outline: shapely.Polygon, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8, 1 inside."""
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    xy, ring = shapely.get_coordinates(shapely.get_rings(outline), return_index=True)
    (x, top), (after, bottom) = xy[:-1].T, xy[1:].T
    upright = (np.diff(ring) == 0) & (x == after)
    first, last = np.sort(np.clip([top[upright], bottom[upright]], *rows), axis=0).astype(np.int64)
    x = x[upright].astype(np.int64)
    # Along a row each upright edge is where inside and outside change.
    lengths = last - first
    row = np.arange(lengths.sum()) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    place = (row - rows[0]) * (width + 1) + np.repeat(x - columns[0], lengths)
    crossings = np.zeros((height, width + 1), np.uint8)
    crossings.reshape(-1)[place] = 1
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1]


def _levels(
    source: DatasetReader, rows: tuple[int, int], columns: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a window as stored, and which pixels the border or missing data cut."""
    spans, margins = [], []
    for (first, last), length in ((rows, source.height), (columns, source.width)):
        spans.append((max(first - 1, 0), min(last + 1, length)))
        margins.append((int(first == 0), int(last == length)))
    levels = source.read(1, window=Window.from_slices(*spans))
    levels = np.pad(levels, margins, constant_values=MISSING)
    missing = levels == MISSING
    cut = missing[:-2, 1:-1] | missing[2:, 1:-1] | missing[1:-1, :-2] | missing[1:-1, 2:]
    return levels[1:-1, 1:-1], cut


def _outlines(numbers: np.ndarray, left: int, top: int) -> dict[int, shapely.Polygon]:
    """The outline of each part, by its number."""
    grid = Affine.translation(left, top)
    shapes = rasterio.features.shapes(numbers, mask=numbers > 0, transform=grid)
    return {int(number): _polygon(outline) for outline, number in shapes}


def _polygon(geometry: dict[str, Any]) -> shapely.Polygon:
    """A polygon of GeoJSON; a quarter of the time of `shapely.geometry.shape`."""
    outer, *holes = (shapely.linearrings(ring) for ring in geometry["coordinates"])
    return shapely.polygons(outer, holes or None)
