# SPDX-License-Identifier: Apache-2.0
"""Objects of many images in one CSV, in pixels: image, x, y or left, top, right, bottom, class."""

import csv
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fieldfare.common.errors import InputError

from .objects import UNNAMED, Objects

IMAGE = ("image", "tile")
POINT, BOX = ("x", "y"), ("left", "top", "right", "bottom")
CLASS = "class"

NEEDED = "image (or tile) and x, y or left, top, right, bottom"


def read_pixel_table(path: Path, image: Path) -> Objects:
    """The objects of one image; an image that is not in the table has none.

    Images are told by their name, with or without suffix. Coordinates count from the image's upper
    left corner.

    Raises:
        InputError: no such columns, or something that is no number.
    """
    status = path.stat()
    rows = _by_image(path, status.st_size, status.st_mtime_ns)
    found = rows.get(image.name, []) + (rows.get(image.stem, []) if image.suffix else [])
    boxes = np.array([box for box, _ in found], np.float64).reshape(-1, 4)
    messages = () if found else (f"{path}: names no object of {image.name}, so it has none",)
    return Objects(boxes, tuple(name for _, name in found), messages)


@functools.lru_cache(maxsize=8)
def _by_image(path: Path, size: int, changed: int) -> dict[str, list[tuple[Sequence[float], str]]]:
    """All rows; size and time of the last change tell one state of the file from another."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = set(reader.fieldnames or ())
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error})") from None
    image = next((name for name in IMAGE if name in columns), None)
    kind = next((names for names in (BOX, POINT) if columns.issuperset(names)), None)
    if image is None or kind is None:
        raise InputError(f"{path}: needs a header with the columns {NEEDED}")
    found: dict[str, list[tuple[Sequence[float], str]]] = {}
    for number, row in enumerate(rows, start=2):
        values = _numbers(f"{path}, line {number}", row, kind)
        name = (row.get(CLASS) or UNNAMED).strip()
        found.setdefault((row[image] or "").strip(), []).append((values, name))
    return found


def _numbers(where: str, row: dict[str, str], names: Sequence[str]) -> list[float]:
    try:
        values = [float(row[name]) for name in names]
    except (TypeError, ValueError):
        values = [math.nan]
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{where}: {', '.join(names)} must be numbers")
    if len(values) == 2:
        return values * 2
    if values[2] <= values[0] or values[3] <= values[1]:
        raise InputError(f"{where}: a box must have left < right and top < bottom")
    return values
