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

import geopandas as gpd
import numpy as np
import rasterio
import rasterio.features
import shapely
from pyproj import CRS
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window
from scipy import ndimage

from ..raster import open_raster
from .regularise import regularise
from .scenes import ground_size
from .splitting import split
from .vectors import fill_holes, metric_crs, part_overlaps, reproject

FULL, MISSING = 250, 255
"""Levels of a probability raster: FULL is 1, MISSING is no data."""

STRIP = 512
"""Rows that are thresholded at a time."""

LARGEST = 36_000_000
"""Pixels of the box around a region above which it is left in one piece."""

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
) -> gpd.GeoDataFrame:
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
    with open_raster(probability) as source:
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
    return gpd.GeoDataFrame(
        {
            "id": np.arange(1, len(regions) + 1),
            "area_m2": shapely.area(polygons).round(2),
            "perimeter_m": shapely.length(polygons).round(2),
            "confidence": np.array([r.confidence for r in regions], np.float64).round(4),
            "orientation": orientation(polygons).round(1) % 180,
            "touches_edge": np.array([r.touches_edge for r in regions], bool),
        },
        geometry=ground.coordinates(polygons),
        crs=ground.crs,
    )


@dataclass(frozen=True)
class _Ground:
    """The way from a raster's pixels to metres and back to its coordinates.

    Attributes:
        unit: metres of a unit of the coordinates where there is no CRS.
    """

    transform: Affine
    crs: CRS | None
    metric: CRS | None
    unit: float

    @classmethod
    def of(cls, source: DatasetReader, gsd: float | None) -> "_Ground":
        crs = CRS.from_user_input(source.crs) if source.crs else None
        if crs is None and gsd is None:
            raise ValueError(f"{source.name}: has no CRS, so gsd must be given")
        return cls(source.transform, crs, metric_crs(crs, source.bounds), gsd or 1.0)

    def pixel(self, source: DatasetReader) -> float:
        """Side in metres of a square as large as a pixel."""
        size = ground_size(source)
        if size is None:
            return self.unit * math.sqrt(abs(self.transform.determinant))
        return math.sqrt(size[0] * size[1])

    def metres(self, polygons: np.ndarray) -> np.ndarray:
        """From pixels (x = column, y = row)."""
        placed = shapely.transform(
            polygons, lambda xy: np.column_stack(self.transform * (xy[:, 0], xy[:, 1]))
        )
        if self.crs is None or self.metric is None:
            return shapely.transform(placed, lambda xy: xy * self.unit)
        return reproject(placed, self.crs, self.metric)

    def coordinates(self, polygons: np.ndarray) -> np.ndarray:
        """From metres to the raster's CRS."""
        if self.crs is None or self.metric is None:
            return shapely.transform(polygons, lambda xy: xy / self.unit)
        return reproject(polygons, self.metric, self.crs)


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
                outlines = [shapely.geometry.shape(geometry) for geometry, _ in shapes]
    outlines = [outline for outline in outlines if outline.area >= least]
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
    """One connected region, parted where roofs touch."""
    left, top, right, bottom = (int(side) for side in outline.bounds)
    # One pixel around it tells whether missing data or the border cut it off.
    first, last = (
        (max(top - 1, 0), max(left - 1, 0)),
        (
            min(bottom + 1, source.height),
            min(right + 1, source.width),
        ),
    )
    window = Window.from_slices((first[0], last[0]), (first[1], last[1]))
    shape = (last[0] - first[0], last[1] - first[1])
    inside = rasterio.features.rasterize(
        [outline], out_shape=shape, transform=Affine.translation(first[1], first[0]), dtype="uint8"
    ).astype(bool)
    levels = source.read(1, window=window)
    numbers = inside.astype(np.int32)
    if settings.split and source.count > 1 and inside.size <= LARGEST:
        numbers = split(inside, source.read(2, window=window) / np.float32(FULL), least)
    cut = ndimage.binary_dilation(levels == MISSING)
    if first[0] == top:
        cut[0] = True
    if first[1] == left:
        cut[:, 0] = True
    if last[0] == bottom:
        cut[-1] = True
    if last[1] == right:
        cut[:, -1] = True
    for number, polygon in _outlines(numbers, outline):
        here = numbers == number
        if number > 1 or numbers.max() > 1:
            polygon = shapely.affinity.translate(polygon, first[1], first[0])
        confidence = float(levels[here].mean()) / FULL
        yield Region(polygon, confidence, bool((cut & here).any()))


def _outlines(numbers: np.ndarray, whole: shapely.Polygon) -> Iterator[tuple[int, shapely.Polygon]]:
    """The outline of each part; the whole region's own where it is in one piece."""
    if numbers.max() == 1:
        yield 1, whole
        return
    largest: dict[int, shapely.Polygon] = {}
    for geometry, number in rasterio.features.shapes(numbers, mask=numbers > 0):
        polygon = shapely.geometry.shape(geometry)
        known = largest.get(int(number))
        if known is None or polygon.area > known.area:
            largest[int(number)] = polygon
    yield from sorted(largest.items())
