# SPDX-License-Identifier: Apache-2.0
"""Footprints as files."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...vectors.writing import write_layer
from .vectors import rounded_degrees

if TYPE_CHECKING:
    import geopandas as gpd

LAYER = "footprints"


def write_footprints(frame: "gpd.GeoDataFrame", path: Path) -> None:
    """Write footprints as `vectors.writing.write_layer` does.

    Raises:
        InputError: another suffix.
    """
    write_layer(frame, path, LAYER, rounded=rounded_degrees)
