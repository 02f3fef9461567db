# SPDX-License-Identifier: Apache-2.0
"""What an evaluation found: scores by set of predictions, pooled, as tables and a picture."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.files import atomic_path, write_text

from ...rasters.pictures import save_sheet
from .objects import ObjectTally
from .pixel_tally import PixelTally

DEFINITIONS = {
    "building_iou": "Intersection over union of the building class, over all pixels pooled, at the "
    "raster's own resolution: TP / (TP + FP + FN). The headline.",
    "mean_iou": "Mean of the IoU of building and the IoU of background. Higher than building_iou "
    "wherever buildings are few; the two are not comparable.",
    "background_iou": "IoU of the background class: TN / (TN + FP + FN).",
    "accuracy": "Share of the pixels that are right: (TP + TN) / all.",
    "pixel_f1": "F1 of the building class over pixels: 2 TP / (2 TP + FP + FN).",
    "pixel_precision": "TP / (TP + FP) over pixels.",
    "pixel_recall": "TP / (TP + FN) over pixels.",
    "relaxed_precision": "Share of predicted building pixels with a true one in the square that "
    "reaches `rho` pixels each way (Mnih 2013).",
    "relaxed_recall": "Share of true building pixels with a predicted one in the same square.",
    "boundary_iou": "IoU of the bands that reach `boundary_px` pixels inwards from the outlines "
    "(Cheng et al. 2021, arXiv 2103.16562).",
    "break_even": "Precision at that of 256 thresholds t / 256 where precision and recall are "
    "closest, pooled.",
    "relaxed_break_even": "The same for relaxed precision and recall.",
    "rho": "Tolerance of the relaxed measures in pixels.",
    "boundary_px": "Width of the bands of boundary_iou in pixels; 1 m on scenes.",
    "object_f1": "F1 over buildings: a prediction is right if it has IoU >= 0.5 with a true "
    "building that no prediction of higher confidence took; smaller than min_area is left out on "
    "both sides (SpaceNet, Van Etten et al. 2018, arXiv 1807.01232).",
    "object_precision": "Right predictions / all predictions.",
    "object_recall": "True buildings found / all true buildings.",
    "tp": "True buildings found.",
    "fp": "Predictions that match no building.",
    "fn": "True buildings missed.",
    "ap50": "Average precision over falling confidence at IoU 0.5, 101 recalls as in COCO, no "
    "limit on the number of predictions.",
    "ap75": "The same at IoU 0.75.",
    "polis": "PoLiS distance of matched pairs, mean: vertices of each to the outline of the other "
    "(Avbelj et al. 2015, doi 10.1109/LGRS.2014.2330695); metres, or pixels without CRS.",
    "count_error": "(predicted - true) / true number of buildings; above 0 is too many.",
    "label_shift_m": "How far the labels lie from what the model sees, metres: median over pairs "
    "of the same building. Sets named 'labels moved' are measured with the labels moved there.",
    "label_bearing": "In which direction, degrees, 0 north, 90 east.",
    "threshold": "Probability from which a pixel is a building.",
    "min_area": "Smaller buildings do not count in object measures; m2, or square pixels.",
    "size_bins": "recall: of true buildings of this area; precision: of predictions of this area; "
    "f1: harmonic mean of the two.",
}
"""What each column of a report means."""


SHEET_ROWS = 6
LEGEND = {"scene": "", "pixels": ": green found, orange false, blue missed"}
OUTLINES = ": orange, true ones green"


@dataclass(frozen=True, eq=False)
class Scores:
    """Tallies of one set of predictions (pixels, raw or regularised); None is not measured."""

    pixels: PixelTally | None = None
    objects: ObjectTally | None = None

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(
            self.pixels + other.pixels if self.pixels and other.pixels else None,
            self.objects + other.objects if self.objects and other.objects else None,
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one model on one scene.

    Attributes:
        sets: `pixels` (the thresholded probabilities) and footprint sets by name.
        settings: what the numbers depend on (min_area, rho, boundary_px ...), for the tables.
        metric: whether areas are in m2; without it there are no size bins.
        panels: (h, w, 3) uint8 pictures by title, of one size.
    """

    scene: str
    sets: dict[str, Scores]
    model: str = ""
    depth: int | None = None
    settings: dict[str, float] = field(default_factory=dict)
    metric: bool = True
    panels: dict[str, np.ndarray] = field(default_factory=dict)


def pool(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """One evaluation `all` of each model and depth with several scenes, as if they were one.

    Settings that differ between scenes are left out, and sets that not all of them have.
    """
    pooled = []
    for key in dict.fromkeys((e.model, e.depth) for e in evaluations):
        mine = [e for e in evaluations if (e.model, e.depth) == key]
        if len(mine) == 1:
            continue
        names = [name for name in mine[0].sets if all(name in e.sets for e in mine)]
        sets = {name: reduce(add, (e.sets[name] for e in mine)) for name in names}
        common = {
            k: v for k, v in mine[0].settings.items() if all(e.settings.get(k) == v for e in mine)
        }
        pooled.append(Evaluation("all", sets, *key, common, all(e.metric for e in mine)))
    return pooled


def table(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One row for each scene, model, depth and set, then those of all scenes pooled.

    The columns are those of `DEFINITIONS`; None where not measured or undefined.
    """
    rows = []
    for evaluation in [*evaluations, *pool(evaluations)]:
        for name, scores in evaluation.sets.items():
            numbers: dict[str, float] = {}
            for part in (scores.pixels, scores.objects):
                numbers |= part.numbers() if part else {}
            rows.append(_key(evaluation, name) | numbers | evaluation.settings)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: _defined(row.get(key)) for key in columns} for row in rows]


def size_table(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One row for each footprint set and size bin; areas in m2, None is without limit."""
    return [
        _key(evaluation, name)
        | {"from_m2": size.least, "below_m2": _defined(size.below)}
        | {"truths": size.truths, "predictions": size.predictions}
        | {k: _defined(getattr(size, k)) for k in ("recall", "precision", "f1")}
        for evaluation in [*evaluations, *pool(evaluations)]
        for name, scores in evaluation.sets.items()
        if scores.objects and evaluation.metric
        for size in scores.objects.by_size()
    ]


def _key(evaluation: Evaluation, name: str) -> dict[str, Any]:
    return {
        "scene": evaluation.scene,
        "model": evaluation.model,
        "depth": evaluation.depth,
        "set": name,
    }


def _defined(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_reports(folder: Path, evaluations: Sequence[Evaluation]) -> list[Path]:
    """Write the tables and, if there are panels, the picture.

    Returns:
        `evaluation.csv` (of `table`), `evaluation.json` (definitions, the same rows, size bins),
        `size_bins.csv` if there are footprints with areas in m2, and `evaluation.png`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows, sizes = table(evaluations), size_table(evaluations)
    written = [folder / "evaluation.csv", folder / "evaluation.json"]
    _write_csv(written[0], rows)
    used = {key: text for key, text in DEFINITIONS.items() if key in rows[0]}
    if sizes:
        written.append(folder / "size_bins.csv")
        _write_csv(written[-1], sizes)
        used["size_bins"] = DEFINITIONS["size_bins"]
    report = {"definitions": used, "rows": rows, "size_bins": sizes}
    write_text(written[1], json.dumps(report, indent=2, allow_nan=False) + "\n")
    shown = [e for e in evaluations if e.panels][:SHEET_ROWS]
    if shown:
        written.append(folder / "evaluation.png")
        _sheet(written[-1], shown)
    return written


def _write_csv(target: Path, rows: Sequence[dict[str, Any]]) -> None:
    with atomic_path(target) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _sheet(target: Path, shown: Sequence[Evaluation]) -> None:
    """A row for each evaluation, a column for each kind of panel."""
    titles = list(dict.fromkeys(title for e in shown for title in e.panels))
    pictures, captions = [], []
    for evaluation in shown:
        blank = np.full_like(next(iter(evaluation.panels.values())), 255)
        pictures.append([evaluation.panels.get(title, blank) for title in titles])
        captions.append([_caption(evaluation, title) for title in titles])
    headings = [f"{title}{LEGEND.get(title, OUTLINES)}" for title in titles]
    save_sheet(target, pictures, headings, captions)


def _caption(evaluation: Evaluation, title: str) -> str:
    scores = evaluation.sets.get(title)
    if scores is None:
        depth = f" depth {evaluation.depth}" if evaluation.depth else ""
        return f"{evaluation.scene} {evaluation.model}{depth}"
    numbers = []
    if scores.pixels:
        numbers.append(f"building IoU {scores.pixels.confusion.building_iou:.3f}")
    if scores.objects:
        numbers.append(f"F1 {scores.objects.numbers()['object_f1']:.3f}")
    return ", ".join(numbers)
