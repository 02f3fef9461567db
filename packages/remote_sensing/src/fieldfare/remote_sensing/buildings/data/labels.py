# SPDX-License-Identifier: Apache-2.0
"""Building labels: reading polygons or masks, repairing them, drawing them on any pixel grid."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from scipy import ndimage

from fieldfare.common.errors import InputError

from ...rasters.georeference import Georeference, distance, georeference_of
from ...rasters.opening import open_raster
from ...scenes.vector_labels import in_pixels
from ...vectors.coco import is_coco
from ...vectors.reading import read_polygons
from .annotations import read_coco, read_yolo

MASKS = (".tif", ".tiff", ".png")
"""Suffixes of labels that are masks."""

EDGE_WIDTH = 2
"""Pixels inside an outline that are drawn as edge."""


@dataclass(frozen=True)
class Labels:
    """Building outlines in pixel coordinates of one raster (x = column, y = row).

    Attributes:
        polygons: shapely polygons, valid.
        messages: what was done to them, for people.
        unknown: parts of which nothing is known: neither building nor background.
        tree, unknown_tree: to find those of a window.
    """

    polygons: np.ndarray
    messages: tuple[str, ...] = ()
    unknown: np.ndarray = field(default_factory=lambda: np.empty(0, object))
    tree: shapely.STRtree = field(init=False, compare=False)
    unknown_tree: shapely.STRtree = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", shapely.STRtree(self.polygons))
        object.__setattr__(self, "unknown_tree", shapely.STRtree(self.unknown))

    def known(
        self, top: float, left: float, height: float, width: float, shape: tuple[int, int]
    ) -> np.ndarray:
        """Where something is known, (rows, columns) bool; arguments as of `instances`."""
        found = self.unknown_tree.query(shapely.box(left, top, left + width, top + height))
        if not found.size:
            return np.ones(shape, bool)
        grid = Affine(width / shape[1], 0, left, 0, height / shape[0], top)
        drawn = rasterio.features.rasterize(self.unknown[found], out_shape=shape, transform=grid)
        known: np.ndarray = drawn == 0
        return known

    def instances(
        self, top: float, left: float, height: float, width: float, shape: tuple[int, int]
    ) -> np.ndarray:
        """Number of the building on each pixel of a window, resampled; 0 where there is none.

        Args:
            top, left, height, width: the window in pixels of the raster, fractions allowed.
            shape: rows and columns of the result.

        Returns:
            (rows, columns) int32; a pixel belongs to what covers its centre.
        """
        found = self.tree.query(shapely.box(left, top, left + width, top + height))
        if not found.size:
            return np.zeros(shape, np.int32)
        grid = Affine(width / shape[1], 0, left, 0, height / shape[0], top)
        result: np.ndarray = rasterio.features.rasterize(
            [(self.polygons[i], int(i) + 1) for i in np.sort(found)],
            out_shape=shape,
            transform=grid,
            dtype="int32",
        )
        return result


def edges(instances: np.ndarray) -> np.ndarray:
    """Pixels within EDGE_WIDTH inside an outline, (h, w) bool: between two touching roofs too."""
    size = 2 * EDGE_WIDTH + 1
    highest = ndimage.maximum_filter(instances, size, mode="nearest")
    lowest = ndimage.minimum_filter(instances, size, mode="nearest")
    edge: np.ndarray = (instances > 0) & (highest != lowest)
    return edge


def read_labels(path: Path, image: Path, layer: str | None = None) -> Labels:
    """Read the labels of a raster: polygons in any CRS, a mask of the raster's size, COCO, YOLO.

    Labels without CRS are taken to be in the raster's, if they lie on it. A file without polygons
    says that the scene has no building.

    Args:
        layer: of a vector file with several.

    Raises:
        InputError: unreadable, no polygon within the raster, or a mask of another size or place.
    """
    with open_raster(image) as dataset:
        place, size = georeference_of(dataset), (dataset.height, dataset.width)
    if path.suffix.lower() in MASKS:
        return _mask_labels(path, image, place, size)
    if path.suffix.lower() == ".txt":
        return Labels(read_yolo(path, size))
    if is_coco(path):
        buildings, crowds = read_coco(path, image)
        return Labels(buildings, unknown=crowds)
    frame, messages = read_polygons(path, layer=layer)
    if frame.empty:
        return Labels(np.empty(0, object), (*messages, f"{path}: no polygon, so no building"))
    found = in_pixels(frame, path, image, noun="polygons")
    return Labels(found.geometries, (*messages, *found.messages))


def _mask_labels(path: Path, image: Path, place: Georeference, size: tuple[int, int]) -> Labels:
    """Connected regions of a mask (not 0 is building) as polygons; its nodata is unknown."""
    with open_raster(path) as dataset:
        if (dataset.height, dataset.width) != size:
            raise InputError(
                f"{path}: has {dataset.width} x {dataset.height} pixels, "
                f"{image.name} {size[1]} x {size[0]}"
            )
        if away := distance(georeference_of(dataset), place, size):
            raise InputError(
                f"{path}: lies {away}, as seen from {image.name}; give its own mask, or warp this "
                "one onto it (gdalwarp -r near)"
            )
        values = dataset.read(1)
        known = dataset.read_masks(1) != 0
        if dataset.nodata == 0:  # a mask's background
            known[:] = True
    return Labels(_regions((values != 0) & known), unknown=_regions(~known))


def _regions(mask: np.ndarray) -> np.ndarray:
    """Outlines of connected pixels."""
    shapes = rasterio.features.shapes(mask.astype(np.uint8), mask=mask)
    polygons = np.empty(0, object)
    found = [shapely.geometry.shape(geometry) for geometry, _ in shapes]
    return np.array(found, object) if found else polygons
