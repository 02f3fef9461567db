# SPDX-License-Identifier: Apache-2.0
"""The picture of outlines on a scene."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from PIL import Image, ImageDraw
from pyproj import CRS
from rasterio import Affine
from rasterio.enums import Resampling

from ..rasters.georeference import georeference_of
from ..rasters.pictures import save_sheet, to_rgb
from ..rasters.reading import Scene
from ..vectors.dateline import near
from .ground import placed, value_range

if TYPE_CHECKING:
    import geopandas as gpd

SIDE = 900
"""Longest side of each panel in pixels."""

COLOUR = (255, 214, 0)


def draw_outlines(
    scene: Path, frame: "gpd.GeoDataFrame", target: Path, values: str | None, *, noun: str
) -> None:
    """Write a scene beside itself with the outlines of what was found.

    A scene of more than 4 times SIDE is shown by the part of that size that holds most of them, so
    that single ones can be seen.

    Args:
        frame: polygons.
        values: `LOW:HIGH`, see `ground.value_range`.
        noun: what they are, for the title.
    """
    with Scene(scene) as source:
        dataset = source.dataset
        place = georeference_of(dataset)
        pixels = to_pixels(frame, place.crs, place.transform)
        side = 4 * SIDE
        top, left, height, width = _densest(pixels, source.height, source.width, side)
        shrink = min(1.0, SIDE / max(height, width))
        shape = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        chosen = value_range(source, values)
        image = dataset.read(
            source.bands[:3],
            window=((top, top + height), (left, left + width)),
            out_shape=(len(source.bands[:3]), *shape),
            resampling=Resampling.average,
        )
    plain = to_rgb(image, chosen.low, chosen.high)
    here = shapely.box(left, top, left + width, top + height)
    shown = pixels[shapely.intersects(pixels, here)]
    shifted = shapely.transform(shown, lambda xy: (xy - (left, top)) * shrink)
    drawn = outlined(plain, shifted, COLOUR)
    save_sheet(target, [[plain, drawn]], ["scene", f"{len(shown)} {noun}"])


def to_pixels(frame: "gpd.GeoDataFrame", crs: object, transform: Affine) -> np.ndarray:
    """Polygons in pixel coordinates of a raster."""
    geometries = frame.geometry.to_numpy()
    if crs is not None and frame.crs is not None:
        own = CRS.from_user_input(crs)
        geometries = near(frame.to_crs(own).geometry.to_numpy(), own, transform.c)
    pixels: np.ndarray = placed(geometries, ~transform)
    return pixels


def outlined(
    image: np.ndarray, polygons: np.ndarray, colour: tuple[int, int, int], width: int = 2
) -> np.ndarray:
    """A copy of an (h, w, 3) uint8 picture with outlines of polygons in its pixel coordinates."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for polygon in polygons:
        for ring in (polygon.exterior, *polygon.interiors):
            draw.line([(x, y) for x, y in ring.coords], fill=colour, width=width)
    return np.asarray(picture)


def _densest(pixels: np.ndarray, height: int, width: int, side: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of the part of at most side x side with most of them."""
    if height <= side and width <= side:
        return 0, 0, height, width
    centres = shapely.get_coordinates(shapely.centroid(pixels)) if len(pixels) else np.zeros((1, 2))
    cells = np.floor(centres / side).astype(int).clip(0)
    cells = np.minimum(cells, [math.ceil(width / side) - 1, math.ceil(height / side) - 1])
    values, counts = np.unique(cells, axis=0, return_counts=True)
    column, row = values[np.argmax(counts)] * side
    left, top = max(0, min(int(column), width - side)), max(0, min(int(row), height - side))
    return top, left, min(side, height - top), min(side, width - left)
