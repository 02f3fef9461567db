# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: bands as colours, grids of panels with titles."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fieldfare.common.files import atomic_path

GAP, TITLE = 8, 26


def to_rgb(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """(bands, h, w) in the raster's unit -> (h, w, 3) uint8; low is black, high is white.

    The first three bands are red, green and blue; fewer are shown in grey.
    """
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
