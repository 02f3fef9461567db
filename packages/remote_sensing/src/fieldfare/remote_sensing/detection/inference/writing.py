# SPDX-License-Identifier: Apache-2.0
"""Detections as files: GeoPackage, GeoParquet, GeoJSON or COCO, by the name."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely

from ...rasters.writing import check_suffix
from ...vectors import writing as vectors

if TYPE_CHECKING:
    import geopandas as gpd

COCO = (".json",)
SUFFIXES = (*vectors.SUFFIXES, *COCO)
LAYER = "detections"

DEGREES = 1e-7
"""What GeoJSON coordinates are rounded to, about a centimetre."""


def check_output(path: Path) -> None:
    """Refuse a name of another format; raises InputError."""
    check_suffix("--output", path, SUFFIXES)


def write_frame(frame: "gpd.GeoDataFrame", path: Path, *, points: bool) -> None:
    """Write a table of `frames.to_frame` as a layer; COCO is written by `coco.write_coco`."""
    kind = "Point" if points else "Polygon"
    vectors.write_layer(frame, path, LAYER, rounded=_rounded, kind=kind)


def _rounded(geometries: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = shapely.transform(geometries, lambda xy: np.round(xy / DEGREES) * DEGREES)
    return rounded
