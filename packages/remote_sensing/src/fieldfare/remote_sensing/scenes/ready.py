# SPDX-License-Identifier: Apache-2.0
"""A scene made ready for a model: at its pixel size, with its bands, checked."""

from dataclasses import dataclass
from pathlib import Path

from rasterio.windows import Window

from fieldfare.common.errors import InputError

from ..rasters.opening import open_raster
from ..rasters.reading import Scene, ValueRange
from ..rasters.windows import Box
from .ground import COARSEST, open_at, value_range


@dataclass(frozen=True)
class Ready:
    """One scene made ready.

    Attributes:
        scene: at the model's pixel size.
        gsd: the scene's own metres per pixel (x, y), None where unknown.
        resampled: whether that differs from the model's.
        values: what the model sees as 0 and 1.
    """

    scene: Scene
    gsd: tuple[float, float] | None
    resampled: bool
    values: ValueRange


def make_ready(
    path: Path,
    *,
    gsd: float,
    in_channels: int,
    bands: tuple[int, ...] | None = None,
    assumed: float | None = None,
    window: Box | None = None,
    values: str | None = None,
    objects: str = "objects",
) -> Ready:
    """Open and check a scene.

    Args:
        gsd, in_channels: metres per pixel and bands of the model.
        bands: 1-based; the first ones besides alpha when None.
        assumed: metres per pixel of a scene without CRS; that of the model when None.
        window: in pixels of the raster.
        values: `LOW:HIGH`, see `ground.value_range`.
        objects: what the model looks for.

    Raises:
        InputError: whatever is wrong with the scene or these.
    """
    scene, size, resampled = open_at(path, gsd, bands, assumed)
    try:
        if len(scene.bands) < in_channels or (bands and len(scene.bands) != in_channels):
            advice = "it takes no grey images"
            if len(scene.bands) >= in_channels or bands:
                advice = "choose them with --bands"
            raise InputError(
                f"{path}: the model takes {in_channels} bands, not {len(scene.bands)}; {advice}"
            )
        if size is not None and max(size) > COARSEST * gsd:
            raise InputError(
                f"{path}: has pixels of {max(size):.3g} m, the model was made for {gsd:g} m; "
                f"{objects} cannot be seen in so coarse imagery"
            )
        scene.bands = scene.bands[:in_channels]
        scene.crop(_window(scene, path, window))
        return Ready(scene, size, resampled, value_range(scene, values))
    except BaseException:
        scene.dataset.close()
        raise


def _window(scene: Scene, path: Path, window: Box | None) -> Window | None:
    """A window of the raster in pixels of the scene, which may be resampled."""
    if window is None:
        return None
    with open_raster(path) as dataset:
        down = scene.dataset.height / dataset.height
        across = scene.dataset.width / dataset.width
    row, column, height, width = window
    top, left = round(row * down), round(column * across)
    bottom, right = round((row + height) * down), round((column + width) * across)
    return Window(left, top, max(1, right - left), max(1, bottom - top))
