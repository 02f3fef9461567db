# SPDX-License-Identifier: Apache-2.0
"""Folders of small rasters that networks are trained on."""

from pathlib import Path

import numpy as np

from fieldfare.common.errors import InputError

from .opening import open_raster


def read_tiles(folder: Path, channels: int) -> list[np.ndarray]:
    """Read every GeoTIFF of a folder as (H, W, C) uint8, in order of name.

    Raises:
        InputError: no GeoTIFF in the folder, or one that is not uint8 or has too few bands.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".tif", ".tiff"))
    if not paths:
        raise InputError(f"{folder}: holds no .tif files")
    tiles = []
    for path in paths:
        with open_raster(path) as source:
            if source.dtypes[0] != "uint8" or source.count < channels:
                raise InputError(
                    f"{path}: training needs uint8 with at least {channels} bands, "
                    f"this has {source.count} of {source.dtypes[0]}"
                )
            tiles.append(source.read(range(1, channels + 1)).transpose(1, 2, 0))
    return tiles
