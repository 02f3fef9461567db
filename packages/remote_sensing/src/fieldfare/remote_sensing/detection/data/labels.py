# SPDX-License-Identifier: Apache-2.0
"""Reading the objects of a raster: vector files, COCO, or a CSV in pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import shapely

from fieldfare.common.errors import InputError

from ...scenes.vector_labels import in_pixels
from ...vectors.coco import is_coco, read_json
from ...vectors.reading import FORMATS, PARQUET, read_frame
from .objects import UNNAMED, Objects
from .pixel_table import read_pixel_table

SUFFIXES = (*FORMATS, *PARQUET, ".csv")
"""Of labels that are looked for in folders."""

CLASS = ("class", "label")
"""Columns of a vector file that name the class; the first there is."""


def read_objects(path: Path, image: Path, layer: str | None = None) -> Objects:
    """Read the objects of a raster.

    Of a vector file, in any CRS, points stay points and any other geometry becomes the box around
    it; its column `class` or `label` names the class. A vector file or CSV without any says that
    the raster has no object.

    Args:
        layer: of a vector file with several.

    Raises:
        InputError: unreadable, or nothing of it lies on the raster.
    """
    if path.suffix.lower() == ".csv":
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        return read_pixel_table(path, image)
    if is_coco(path):
        return _coco(path, image)
    frame = read_frame(path, layer)
    geometries = frame.geometry.to_numpy()
    empty = shapely.is_missing(geometries) | shapely.is_empty(geometries)
    messages = [f"{path}: {int(empty.sum())} empty geometries left out"] * bool(empty.any())
    frame = frame[~empty].reset_index(drop=True)
    if frame.empty:
        return Objects(np.empty((0, 4)), (), (*messages, f"{path}: holds no object"))
    found = in_pixels(frame, path, image, noun="objects")
    column = next((name for name in CLASS if name in frame.columns), None)
    names = [UNNAMED] * len(found.rows)
    if column is not None:
        values = frame[column].iloc[found.rows]
        names = [UNNAMED if value is None else str(value).strip() for value in values]
    boxes = shapely.bounds(found.geometries)
    flat = (boxes[:, :2] == boxes[:, 2:]).any(1) & (boxes[:, :2] != boxes[:, 2:]).any(1)
    if flat.any():
        raise InputError(f"{path}: holds lines without area; give boxes, outlines or points")
    return Objects(boxes, tuple(names), (*messages, *found.messages))


def _coco(path: Path, image: Path) -> Objects:
    """The boxes of one image, which is found by its file's name, with or without suffix."""
    found: Any = read_json(path)
    try:
        numbers = {
            row["id"]
            for row in found["images"]
            if image.name == Path(row["file_name"]).name
            or image.stem == Path(row["file_name"]).stem
        }
        if len(numbers) != 1:
            raise InputError(f"{path}: names {image.name} {len(numbers)} times among its images")
        kinds = {row["id"]: str(row["name"]) for row in found.get("categories", [])}
        rows = [row for row in found["annotations"] if row["image_id"] in numbers]
        left_out = sum(bool(row.get("iscrowd")) for row in rows)
        rows = [row for row in rows if not row.get("iscrowd")]
        sides = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        names = tuple(kinds.get(row.get("category_id"), UNNAMED) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable COCO file of boxes ({error!r})") from None
    if not np.isfinite(sides).all() or (sides[:, 2:] <= 0).any():
        raise InputError(f"{path}: a box of {image.name} has no width, no height or no numbers")
    messages = (f"{path}: {left_out} crowds left out",) * bool(left_out)
    return Objects(np.column_stack((sides[:, :2], sides[:, :2] + sides[:, 2:])), names, messages)
