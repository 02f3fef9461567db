# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation: hits and misses, outlines beside true ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import shapely
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ...rasters.georeference import georeference_of
from ...rasters.pictures import to_rgb
from ...rasters.reading import Scene
from ...scenes.ground import value_range
from ...scenes.preview import outlined
from ..data.labels import Labels

SIDE = 480
"""Longest side of a panel in pixels of the raster."""

FOUND, FALSE, MISSED = (0, 158, 115), (230, 97, 0), (0, 114, 178)
"""Colours of a hit, a false alarm and a miss, which the colour-blind can tell apart."""


def draw(polygons: Labels, window: Window) -> np.ndarray:
    """Pixels of a window whose centre a polygon covers, (h, w) bool."""
    box = (window.row_off, window.col_off, window.height, window.width)
    return polygons.instances(*box, (int(window.height), int(window.width))) > 0


def present(source: DatasetReader, window: Window) -> np.ndarray:
    """Which pixels hold data, (h, w) bool. A nodata value of 0 is a mask's background."""
    if source.nodata == 0:
        return np.ones((int(window.height), int(window.width)), bool)
    held: np.ndarray = source.read_masks(1, window=window) != 0
    return held


def overlay(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 with hits, false alarms and misses in colour; masks (h, w) bool."""
    coloured = image.astype(np.float32)
    for here, colour in (
        (predicted & truth, FOUND),
        (predicted & ~truth, FALSE),
        (truth & ~predicted, MISSED),
    ):
        coloured[here] = 0.35 * coloured[here] + 0.65 * np.array(colour, np.float32)
    return coloured.round().astype(np.uint8)


def mask_panels(
    predicted: DatasetReader, truth: DatasetReader, least: float
) -> dict[str, np.ndarray]:
    """Hits and misses in the middle of two rasters."""
    height, width = (min(side, SIDE) for side in predicted.shape)
    top, left = (predicted.height - height) // 2, (predicted.width - width) // 2
    window = Window(left, top, width, height)
    white = np.full((height, width, 3), 255, np.uint8)
    masks = (predicted.read(1, window=window) >= least, truth.read(1, window=window) != 0)
    valid = present(predicted, window) & present(truth, window)
    return {"pixels": overlay(white, *(mask & valid for mask in masks))}


def scene_panels(
    source: DatasetReader, least: float, drawn: Mapping[str, Labels], image: Path | None
) -> dict[str, np.ndarray]:
    """The part of a scene with most true buildings: itself, pixel hits, outlines of each set."""
    window = _densest(shapely.centroid(drawn[""].polygons), source.shape)
    levels = source.read(1, window=window)
    plain = levels[..., None].repeat(3, 2) if image is None else _view(image, source, window)
    valid = present(source, window)
    pixels = overlay(plain, (levels >= least) & valid, draw(drawn[""], window) & valid)
    panels = {"scene": plain, "pixels": pixels}
    for name, polygons in drawn.items():
        near = polygons.polygons[polygons.tree.query(shapely.box(*_bounds(window)))]
        placed = shapely.get_parts(near)
        placed = shapely.transform(placed, lambda xy: xy - (window.col_off, window.row_off))
        if name:
            panels[name] = outlined(panels[name], placed, FALSE)
        else:
            panels |= {other: outlined(plain, placed, FOUND) for other in drawn if other}
    return panels


def _bounds(window: Window) -> tuple[float, float, float, float]:
    right, bottom = window.col_off + window.width, window.row_off + window.height
    return window.col_off, window.row_off, right, bottom


def _densest(centres: np.ndarray, shape: tuple[int, int]) -> Window:
    """A window of at most SIDE x SIDE pixels where most of the points lie."""
    height, width = (min(side, SIDE) for side in shape)
    points = shapely.get_coordinates(centres)
    cells = [np.arange(0, side + SIDE, SIDE) for side in shape]
    counts = np.histogram2d(points[:, 1], points[:, 0], bins=cells)[0]
    row, column = np.unravel_index(np.argmax(counts), counts.shape)
    return Window(
        min(int(column) * SIDE, shape[1] - width),
        min(int(row) * SIDE, shape[0] - height),
        width,
        height,
    )


def _view(image: Path, source: DatasetReader, window: Window) -> np.ndarray:
    """The same ground of the scene itself, (h, w, 3) uint8."""
    left, top, right, bottom = _bounds(window)
    with Scene(image) as scene:
        values = value_range(scene, None)
        to_image = ~georeference_of(scene.dataset).transform * source.transform
        (x0, y0), (x1, y1) = to_image * (left, top), to_image * (right, bottom)
        bands = scene.dataset.read(
            list(scene.bands[:3]),
            window=Window(x0, y0, x1 - x0, y1 - y0),
            out_shape=(len(scene.bands[:3]), int(window.height), int(window.width)),
            resampling=Resampling.average,
        )
    return to_rgb(bands, values.low, values.high)
