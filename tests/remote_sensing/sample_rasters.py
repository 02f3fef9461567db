# SPDX-License-Identifier: Apache-2.0
"""Small rasters made on the spot."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

TRANSFORM = Affine(2.4, 0, 500_000, 0, -2.4, 4_000_000)


def write_raster(path: Path, values: np.ndarray, **profile) -> Path:
    """Write (bands, h, w) as a GeoTIFF in UTM unless told otherwise; mask= adds a mask band."""
    mask = profile.pop("mask", None)
    tags = profile.pop("tags", {})
    profile = {"crs": "EPSG:32611", "transform": TRANSFORM} | profile
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=len(values),
            height=values.shape[1],
            width=values.shape[2],
            dtype=values.dtype,
            **profile,
        ) as sink,
    ):
        sink.write(values)
        sink.update_tags(**tags)
        if mask is not None:
            sink.write_mask(mask)
    return path


def smooth(bands: int, height: int, width: int, low: float, high: float) -> np.ndarray:
    """A smooth (bands, h, w) float64 picture between two values."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + b)) * np.cos(y / (4 + b)) for b in range(bands)]
    return low + (np.stack(waves) + 1) / 2 * (high - low)
