# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: before and after, and the contact sheet of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageDraw, ImageFont
from rasterio.windows import Window

from fieldfare.common.files import atomic_path

from ..raster import Scene, ValueRange

SIDE = 640
"""Side of each panel in pixels."""

GAP, TITLE = 8, 26


def before_after(
    scene: Scene, enlarged: Path, values: ValueRange, target: Path, scale: int
) -> None:
    """Write the middle of the scene, magnified by repetition, beside its enlargement.

    The first three bands are shown as red, green and blue, one band in grey, stretched alike from
    the 1st to the 99th percentile of what is shown.
    """
    height, width = (min(side, SIDE // scale) for side in (scene.height, scene.width))
    top, left = (scene.height - height) // 2, (scene.width - width) // 2
    rows = (scene.top + top, scene.top + top + height)
    columns = (scene.left + left, scene.left + left + width)
    before = scene.read(rows, columns)
    valid = scene.valid(before, rows, columns)
    with rasterio.open(enlarged) as source:
        window = Window(left * scale, top * scale, width * scale, height * scale)
        after = source.read(range(1, len(scene.bands) + 1), window=window)
    low, high = np.percentile(before[valid], (1, 99)) if valid.any() else (values.low, values.high)
    panels = [
        _colour(image, float(low), float(high))
        for image in (before.repeat(scale, 1).repeat(scale, 2), after)
    ]
    save_sheet(target, [panels], ["input", f"{scale} x"])


def _colour(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """(bands, h, w) in the raster's unit -> (h, w, 3) uint8."""
    shown = image[[0, 1, 2]] if len(image) >= 3 else image[[0, 0, 0]]
    scaled = (np.nan_to_num(shown.astype(np.float64)) - low) / max(high - low, 1e-12)
    return (np.clip(scaled, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)


def save_sheet(
    target: Path,
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
) -> None:
    """Write a grid of pictures with a title for each column.

    Args:
        rows: (h, w, 3) uint8 pictures, of one size within a row.
        captions: a line under each picture.
    """
    font = ImageFont.load_default(16)
    below = TITLE if captions else 0
    heights = [row[0].shape[0] + below + GAP for row in rows]
    widths = [max(row[i].shape[1] for row in rows) for i in range(len(titles))]
    sheet = Image.new(
        "RGB",
        (sum(widths) + GAP * (len(widths) + 1), TITLE + sum(heights) + GAP),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    lefts = [GAP + sum(widths[:i]) + GAP * i for i in range(len(widths))]
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, 4), title, fill="black", font=font)
    top = TITLE
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        for index, (left, picture) in enumerate(zip(lefts, row, strict=True)):
            sheet.paste(Image.fromarray(picture), (left, top))
            if captions:
                text = captions[number][index]
                draw.text((left, top + picture.shape[0] + 2), text, fill="black", font=font)
        top += height
    with atomic_path(target) as temporary:
        sheet.save(temporary, format="PNG")
