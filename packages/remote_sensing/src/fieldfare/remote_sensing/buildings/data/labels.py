# SPDX-License-Identifier: Apache-2.0
"""Building labels: reading polygons or masks, repairing them, drawing them on any pixel grid."""

from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio.features
import shapely
from affine import Affine
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from pyproj.exceptions import ProjError
from scipy import ndimage

from fieldfare.common.errors import InputError

from ...rasters.reading import open_raster
from .scenes import placed

EDGE_WIDTH = 2
"""Pixels inside an outline that are drawn as edge."""


@dataclass(frozen=True)
class Labels:
    """Building outlines in pixel coordinates of one raster (x = column, y = row).

    Attributes:
        polygons: shapely polygons, valid.
        messages: what was done to them, for people.
        tree: to find those of a window.
    """

    polygons: np.ndarray
    messages: tuple[str, ...] = ()
    tree: shapely.STRtree = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", shapely.STRtree(self.polygons))

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


def read_polygons(path: Path, keep: str | None = None) -> tuple[gpd.GeoDataFrame, list[str]]:
    """Read a vector file's polygons, repaired, each part on its own.

    Args:
        keep: a column to keep where there is one.

    Returns:
        The polygons in the file's own CRS, and what had to be done, in words.

    Raises:
        InputError: missing, not a vector file, or other geometries than polygons.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            frame = gpd.read_parquet(path)
        else:
            frame = pyogrio.read_dataframe(path)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable vector file ({error})") from None
    if not isinstance(frame, gpd.GeoDataFrame):
        raise InputError(f"{path}: holds no geometries")
    messages = []
    geometry = frame.geometry.to_numpy()
    kinds = set(shapely.get_type_id(geometry[~shapely.is_missing(geometry)]).tolist())
    polygonal = {int(shapely.GeometryType.POLYGON), int(shapely.GeometryType.MULTIPOLYGON)}
    if kinds - polygonal:
        raise InputError(f"{path}: holds other geometries than polygons; export polygons only")
    geometry = shapely.force_2d(geometry)
    empty = shapely.is_missing(geometry) | shapely.is_empty(geometry)
    if empty.any():
        messages.append(f"{path}: {int(empty.sum())} empty geometries left out")
    rows, geometry = np.flatnonzero(~empty), geometry[~empty]
    broken = ~shapely.is_valid(geometry)
    if broken.any():
        geometry[broken] = shapely.make_valid(
            geometry[broken], method="structure", keep_collapsed=False
        )
        messages.append(f"{path}: {int(broken.sum())} invalid geometries repaired")
    parts, owner = shapely.get_parts(geometry, return_index=True)
    whole = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & (shapely.area(parts) > 0)
    columns = {}
    if keep in frame.columns:
        columns[keep] = frame[keep].to_numpy()[rows[owner[whole]]]
    return gpd.GeoDataFrame(columns, geometry=parts[whole], crs=frame.crs), messages


def read_labels(path: Path, image: Path) -> Labels:
    """Read the labels of a raster: polygons in any CRS, or a mask of the raster's size.

    Labels without CRS are taken to be in the raster's, if they lie on it. A file without polygons
    says that the scene has no building.

    Raises:
        InputError: unreadable, no polygon within the raster, or a mask of another size.
    """
    with open_raster(image) as dataset:
        crs = CRS.from_user_input(dataset.crs) if dataset.crs else None
        transform, size = dataset.transform, (dataset.height, dataset.width)
    if path.suffix.lower() in (".tif", ".tiff", ".png"):
        return _mask_labels(path, image, size)
    frame, messages = read_polygons(path)
    if frame.empty:
        return Labels(np.empty(0, object), (*messages, f"{path}: no polygon, so no building"))
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
    pixels = placed(frame.geometry.to_numpy(), ~transform)
    inside = shapely.intersects(pixels, shapely.box(0, 0, size[1], size[0]))
    if not inside.any():
        raise InputError(
            f"{path}: none of its {len(pixels)} polygons lies on {image.name}; check the CRS"
        )
    if not inside.all():
        messages.append(f"{path}: {int((~inside).sum())} polygons lie outside {image.name}")
    return Labels(pixels[inside], tuple(messages))


def _mask_labels(path: Path, image: Path, size: tuple[int, int]) -> Labels:
    """Connected regions of a mask (not 0 is building) as polygons."""
    with open_raster(path) as dataset:
        if (dataset.height, dataset.width) != size:
            raise InputError(
                f"{path}: has {dataset.width} x {dataset.height} pixels, "
                f"{image.name} {size[1]} x {size[0]}"
            )
        mask = dataset.read(1) != 0
    shapes = rasterio.features.shapes(mask.astype(np.uint8), mask=mask)
    polygons = [shapely.geometry.shape(geometry) for geometry, _ in shapes]
    return Labels(np.array(polygons, object))
