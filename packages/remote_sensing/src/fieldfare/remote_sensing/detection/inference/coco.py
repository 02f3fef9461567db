# SPDX-License-Identifier: Apache-2.0
"""Detections as COCO: one JSON with boxes in pixels of the raster."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.files import write_text

from .predict import Detections


def to_coco(
    found: Detections,
    points: np.ndarray,
    image: Path,
    size: tuple[int, int],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """The content of a COCO file of one image.

    Args:
        found: in pixels of the raster itself.
        points: (N, 2) their middles in the raster's coordinates; written as `point`.
        image: the raster.
        size: its rows and columns.
        classes: names of all that the model knows; numbered from 1.
    """
    rows = zip(found.boxes, found.scores, found.classes, points, strict=True)
    return {
        "images": [{"id": 1, "file_name": image.name, "height": size[0], "width": size[1]}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": int(kind) + 1,
                "bbox": _numbers(*box[:2], *(box[2:] - box[:2])),
                "area": round(float((box[2:] - box[:2]).prod()), 3),
                "iscrowd": 0,
                "score": round(float(score), 4),
                "point": [float(x) for x in point],
            }
            for number, (box, score, kind, point) in enumerate(rows, 1)
        ],
    }


def _numbers(*values: float) -> list[float]:
    return [round(float(value), 3) for value in values]


def write_coco(content: dict[str, Any], path: Path) -> None:
    """Write it."""
    write_text(path, json.dumps(content) + "\n")
