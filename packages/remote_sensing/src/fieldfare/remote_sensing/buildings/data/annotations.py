# SPDX-License-Identifier: Apache-2.0
"""Labels as annotation tools write them, in pixels: COCO (one JSON for many images) and YOLO
segmentation (one text for each image)."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import shapely

from fieldfare.common.errors import InputError

from ...vectors.coco import read_json


def read_coco(path: Path, image: Path) -> tuple[np.ndarray, np.ndarray]:
    """Buildings of one image, and parts of it of which it is only known that some are (crowds).

    The image is found by its file's name without suffix.

    Returns:
        Two arrays of polygons in pixels.

    Raises:
        InputError: the image is not in the file, or an annotation has no outline.
    """
    found = read_json(path)
    try:
        numbers = {
            row["id"]
            for row in found["images"]
            if Path(row["file_name"]).name == image.name
            or Path(row["file_name"]).stem == image.stem
        }
        if len(numbers) != 1:
            raise InputError(f"{path}: names {image.name} {len(numbers)} times among its images")
        sides = next(row for row in found["images"] if row["id"] in numbers)
        shape = (int(sides["height"]), int(sides["width"]))
        polygons: tuple[list[shapely.Geometry], list[shapely.Geometry]] = ([], [])
        for row in found["annotations"]:
            if row["image_id"] in numbers:
                polygons[bool(row.get("iscrowd"))].extend(_outlines(row["segmentation"], shape))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable COCO file ({error!r})") from None
    return _valid(polygons[0]), _valid(polygons[1])


def _outlines(segmentation: Any, shape: tuple[int, int]) -> list[shapely.Geometry]:
    """Polygons of one object: lists of x and y in turn, or a run-length mask."""
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        runs = _decoded(counts) if isinstance(counts, str) else [int(count) for count in counts]
        if sum(runs) != shape[0] * shape[1] or min(runs) < 0:
            raise ValueError("a run-length mask of another size than its image")
        values = np.repeat(np.arange(len(runs), dtype=np.uint8) % 2, runs)
        mask = np.ascontiguousarray(values.reshape(shape[::-1]).T)
        shapes = rasterio.features.shapes(mask, mask=mask > 0)
        return [shapely.geometry.shape(geometry) for geometry, _ in shapes]
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in segmentation]
    return [shapely.Polygon(ring) for ring in rings if len(ring) >= 3]


def _decoded(text: str) -> list[int]:
    """Run lengths of pycocotools' string: 5 bits a character, differences from the third on."""
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def read_yolo(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Outlines of a YOLO segmentation file: class x1 y1 x2 y2 ..., as shares of the image's sides.

    Args:
        size: rows and columns of the image.

    Returns:
        Polygons in pixels.

    Raises:
        InputError: boxes, or lines of another kind.
    """
    polygons = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        try:
            values = [float(word) for word in line.split()[1:]]
        except ValueError:
            values = [-1.0]
        if not line.strip():
            continue
        if len(values) == 4:
            raise InputError(
                f"{path}, line {number}: is a box; outlines (YOLO segmentation) are needed"
            )
        if len(values) < 6 or len(values) % 2 or min(values) < -0.01 or max(values) > 1.01:
            raise InputError(
                f"{path}, line {number}: is no outline of YOLO segmentation "
                "(class x1 y1 x2 y2 ..., each from 0 to 1)"
            )
        points = np.reshape(values, (-1, 2)) * (size[1], size[0])
        polygons.append(shapely.Polygon(points))
    return _valid(polygons)


def _valid(polygons: list[shapely.Geometry]) -> np.ndarray:
    """Repaired, each part on its own."""
    array = np.array(polygons, object)
    broken = ~shapely.is_valid(array) if len(array) else np.zeros(0, bool)
    array[broken] = shapely.make_valid(array[broken], method="structure", keep_collapsed=False)
    parts = shapely.get_parts(array)
    kept: np.ndarray = parts[shapely.area(parts) > 0] if len(parts) else parts
    return kept
