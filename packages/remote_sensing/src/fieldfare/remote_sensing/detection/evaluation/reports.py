# SPDX-License-Identifier: Apache-2.0
"""Tables and pictures of how detections compare with what is there."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fieldfare.common.files import atomic_path, write_text

from ...rasters.pictures import save_sheet
from ..data.patches import read_part
from .compare import Compared, Scores

SIDE = 512
"""Longest side of a panel in pixels."""

SHOWN = 4
"""Scenes in the picture."""

RIGHT, WRONG, MISSED = (80, 255, 80), (255, 60, 60), (255, 220, 0)
DOT, RING = 3, 6
"""Radius in pixels of the mark of a detection, and of a missed object."""

DEFINITIONS = {
    "objects": "objects whose middle lies in the scenes",
    "found": "detections",
    "precision": "share of the detections that are one of as many pairs as possible of a detection "
    "and an object of its class whose middles lie at most so many metres apart (--reach)",
    "recall": "share of the objects in such pairs",
    "f1": "2 pairs / (detections + objects), over all scenes of the row together",
    "f1_iou50": "the same by boxes whose IoU is at least 0.5, where boxes are known",
}


def table(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Rows of all models, area by area; None is what does not exist."""
    rows = [row for each in scores for row in each.rows()]
    order = {area: number for number, area in enumerate(dict.fromkeys(r["area"] for r in rows))}
    rows.sort(key=lambda row: order[row["area"]])
    return [{name: _defined(value) for name, value in row.items()} for row in rows]


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_reports(folder: Path, scores: Sequence[Scores]) -> list[Path]:
    """Write `evaluation.csv`, `evaluation.json` (definitions, the same rows) and `evaluation.png`:
    some scenes with what is right, wrong and missed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = table(scores)
    written = [folder / f"evaluation.{suffix}" for suffix in ("csv", "json", "png")]
    with atomic_path(written[0]) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    report = {"definitions": DEFINITIONS, "rows": rows}
    write_text(written[1], json.dumps(report, indent=2, allow_nan=False) + "\n")
    chosen = _chosen(len(scores[0].scenes))
    save_sheet(
        written[2],
        [[panel(each.scenes[number]) for each in scores] for number in chosen],
        [f"{each.model}: right (green), wrong (red), missed (yellow)" for each in scores],
        [[_caption(each.scenes[number]) for each in scores] for number in chosen],
    )
    return written


def _chosen(count: int) -> list[int]:
    """Numbers of at most SHOWN scenes, evenly spread."""
    return sorted({round((i + 0.5) * count / SHOWN - 0.5) for i in range(min(SHOWN, count))})


def _caption(compared: Compared) -> str:
    return f"{compared.scene.image.name}: F1 {compared.counts.f1:.3f}"


def panel(compared: Compared) -> np.ndarray:
    """(h, w, 3) uint8: a scene with the middles of what was found and missed."""
    scene, window = compared.scene, compared.scene.window
    part = (window.row_off, window.col_off, window.height, window.width)
    longest = max(window.height * scene.gsd[1], window.width * scene.gsd[0])
    image, _, _ = read_part(scene, part, longest / SIDE, classes=("",), point_size=1.0)
    colours = image[..., [0, 1, 2] if image.shape[-1] >= 3 else [0, 0, 0]]
    picture = Image.fromarray((colours * 255).round().astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    scale = np.array([image.shape[1] / window.width, image.shape[0] / window.height])
    offset = np.array([window.col_off, window.row_off])
    right = np.zeros(len(compared.found), bool)
    right[compared.pairs[compared.pairs >= 0]] = True
    for (x, y), good in zip((compared.found.centres - offset) * scale, right, strict=True):
        colour = RIGHT if good else WRONG
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=colour)
    missed = compared.true[compared.pairs < 0]
    middles = (missed[:, :2] + missed[:, 2:]) / 2
    for x, y in (middles - offset) * scale:
        draw.ellipse((x - RING, y - RING, x + RING, y + RING), outline=MISSED, width=2)
    return np.asarray(picture)
