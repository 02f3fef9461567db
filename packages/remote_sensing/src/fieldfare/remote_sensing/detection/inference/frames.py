# SPDX-License-Identifier: Apache-2.0
"""Detections as tables with a place: boxes or points in the scene's coordinates."""

from typing import TYPE_CHECKING

import numpy as np
import shapely
from rasterio import Affine

from ...rasters.reading import Scene
from ...scenes.ground import placed
from .predict import Detections

if TYPE_CHECKING:
    import geopandas as gpd


def to_frame(
    found: Detections, scene: Scene, classes: tuple[str, ...], *, model: str, points: bool
) -> "gpd.GeoDataFrame":
    """One row a detection: class, confidence, x and y of its middle, model, geometry.

    Args:
        found: in pixels of the scene.
        classes: their names.
        points: the geometry is the middle instead of the box.

    Returns:
        In the scene's CRS; without one, in pixels of the raster (x = column, y = row).
    """
    import geopandas as gpd

    middles = to_map(found, scene)
    columns = {
        "class": np.array(classes, object)[found.classes],
        "confidence": found.scores.round(4),
        "x": middles[:, 0],
        "y": middles[:, 1],
        "model": model,
    }
    geometry = shapely.points(middles) if points else _boxes(found, scene)
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=scene.crs)


def to_map(found: Detections, scene: Scene) -> np.ndarray:
    """(N, 2) x and y of the middles in the scene's coordinates."""
    middles = placed(shapely.points(found.centres), _transform(scene))
    return np.column_stack((shapely.get_x(middles), shapely.get_y(middles)))


def _boxes(found: Detections, scene: Scene) -> np.ndarray:
    """Rectangles of the scene's grid, cut at its rim."""
    edge = (scene.dataset.width, scene.dataset.height)
    inside = np.minimum(found.boxes.clip(min=0), edge * 2)
    boxes: np.ndarray = placed(shapely.box(*inside.T), _transform(scene))
    return boxes


def _transform(scene: Scene) -> Affine:
    return scene.place.transform if scene.place else scene.dataset.transform
