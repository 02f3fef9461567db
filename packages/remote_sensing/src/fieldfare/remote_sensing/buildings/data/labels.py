# SPDX-License-Identifier: Apache-2.0
"""Building labels: reading polygons or masks, repairing them, drawing them on any pixel grid."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import ProjError
from scipy import ndimage

from fieldfare.common.errors import InputError

from ...rasters.georeference import Georeference, distance, georeference_of
from ...rasters.opening import open_raster
from .annotations import is_coco, read_coco, read_yolo
from .dateline import near
from .scenes import placed
from .vectors import read_polygons

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
        local = dataset.crs is not None and place.crs is None
    if path.suffix.lower() in MASKS:
        return _mask_labels(path, image, place, size)
    if path.suffix.lower() == ".txt":
        return Labels(read_yolo(path, size))
    if is_coco(path):
        buildings, crowds = read_coco(path, image)
        return Labels(buildings, unknown=crowds)
    crs = CRS.from_user_input(place.crs) if place.crs else None
    transform = place.transform
    frame, messages = read_polygons(path, layer=layer)
    if frame.empty:
        return Labels(np.empty(0, object), (*messages, f"{path}: no polygon, so no building"))
    if local and frame.crs is not None and _on_earth(frame.crs, frame.total_bounds):
        raise InputError(
            f"{path}: cannot be brought from its CRS into that of {image.name}; check both"
        )
    if crs is not None and frame.crs is not None and not frame.crs.equals(crs):
        try:
            frame = frame.to_crs(crs)
        except ProjError:
            raise InputError(
                f"{path}: cannot be brought from its CRS into that of {image.name}; check both"
            ) from None
    elif crs is not None and frame.crs is None:
        messages.append(f"{path}: has no CRS; taken to be in that of {image.name}")
    elif crs is None and frame.crs is not None and not transform.is_identity:
        messages.append(f"{image}: has no CRS; taken to be in that of {path.name}")
    middle, _ = transform * (size[1] / 2, size[0] / 2)
    pixels = placed(near(frame.geometry.to_numpy(), crs, middle), ~transform)
    inside = shapely.intersects(pixels, shapely.box(0, 0, size[1], size[0]))
    if not inside.any():
        raise InputError(
            f"{path}: none of its {len(pixels)} polygons lies on {image.name}; check the CRS"
        )
    if not inside.all():
        messages.append(f"{path}: {int((~inside).sum())} polygons lie outside {image.name}")
    return Labels(pixels[inside], tuple(messages))


def _on_earth(crs: CRS, bounds: np.ndarray) -> bool:
    """Whether coordinates lie on Earth; GeoJSON without CRS only seems to be in degrees."""
    if not (crs.is_geographic or crs.is_projected):
        return False
    return crs.is_projected or bool(np.abs(bounds).max() <= 360)


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
