# SPDX-License-Identifier: Apache-2.0
"""The picture of before and after."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from .pictures import save_sheet, to_rgb
from .reading import Scene, ValueRange

SIDE = 640
"""Side of each panel in pixels."""


def before_after(
    scene: Scene,
    result: Path,
    values: ValueRange,
    target: Path,
    scale: int,
    *,
    title: str,
    stretched: bool = True,
) -> None:
    """Write the middle of the scene, magnified by repetition, beside the result.

    The first three bands are shown as red, green and blue, one band in grey, stretched alike from
    the 1st to the 99th percentile of what is shown, or over `values` where not `stretched`.

    Args:
        result: the raster made of the scene, so many times larger.
        title: over it.
    """
    height, width = (min(side, SIDE // scale) for side in (scene.height, scene.width))
    top, left = (scene.height - height) // 2, (scene.width - width) // 2
    rows = (scene.top + top, scene.top + top + height)
    columns = (scene.left + left, scene.left + left + width)
    before = scene.read(rows, columns)
    valid = scene.valid(before, rows, columns)
    with rasterio.open(result) as source:
        window = Window(left * scale, top * scale, width * scale, height * scale)
        after = source.read(range(1, len(scene.bands) + 1), window=window)
    low, high = values.low, values.high
    if stretched and valid.any():
        low, high = np.percentile(before[valid], (1, 99))
    panels = [
        to_rgb(image, float(low), float(high))
        for image in (before.repeat(scale, 1).repeat(scale, 2), after)
    ]
    save_sheet(target, [panels], ["input", title])
