# SPDX-License-Identifier: Apache-2.0
"""Labels of a raster out of a vector file: from any CRS into the raster's pixels."""

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import ProjError

from fieldfare.common.errors import InputError

from ..rasters.georeference import georeference_of
from ..rasters.opening import open_raster
from ..vectors.dateline import near
from .ground import placed


@dataclass(frozen=True)
class InPixels:
    """What of a vector file lies on a raster.

    Attributes:
        geometries: in pixels of the raster (x = column, y = row).
        rows: which rows of the file they are.
        messages: what was done, in words.
    """

    geometries: np.ndarray
    rows: np.ndarray
    messages: tuple[str, ...]


def in_pixels(frame: gpd.GeoDataFrame, path: Path, image: Path, *, noun: str) -> InPixels:
    """Bring geometries into the pixels of a raster; those beside it are left out.

    Geometries without CRS are taken to be in the raster's, if they lie on it.

    Args:
        frame: what the vector file `path` holds, not empty.
        noun: what they are, for messages.

    Raises:
        InputError: the CRS does not lead there, or nothing lies on the raster.
    """
    with open_raster(image) as dataset:
        place, size = georeference_of(dataset), (dataset.height, dataset.width)
        local = dataset.crs is not None and place.crs is None
    crs = CRS.from_user_input(place.crs) if place.crs else None
    transform, messages = place.transform, []
    lost = InputError(
        f"{path}: cannot be brought from its CRS into that of {image.name}; check both"
    )
    if local and frame.crs is not None and _on_earth(frame.crs, frame.total_bounds):
        raise lost
    if crs is not None and frame.crs is not None and not frame.crs.equals(crs):
        try:
            frame = frame.to_crs(crs)
        except ProjError:
            raise lost from None
    elif crs is not None and frame.crs is None:
        messages.append(f"{path}: has no CRS; taken to be in that of {image.name}")
    elif crs is None and frame.crs is not None and not transform.is_identity:
        messages.append(f"{image}: has no CRS; taken to be in that of {path.name}")
    middle, _ = transform * (size[1] / 2, size[0] / 2)
    pixels = placed(near(frame.geometry.to_numpy(), crs, middle), ~transform)
    inside = shapely.intersects(pixels, shapely.box(0, 0, size[1], size[0]))
    if not inside.any():
        raise InputError(
            f"{path}: none of its {len(pixels)} {noun} lies on {image.name}; check the CRS"
        )
    if not inside.all():
        messages.append(f"{path}: {int((~inside).sum())} {noun} lie outside {image.name}")
    return InPixels(pixels[inside], np.flatnonzero(inside), tuple(messages))


def _on_earth(crs: CRS, bounds: np.ndarray) -> bool:
    """Whether coordinates lie on Earth; GeoJSON without CRS only seems to be in degrees."""
    if not (crs.is_geographic or crs.is_projected):
        return False
    return crs.is_projected or bool(np.abs(bounds).max() <= 360)
