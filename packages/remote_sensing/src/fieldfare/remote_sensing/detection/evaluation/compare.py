# SPDX-License-Identifier: Apache-2.0
"""Detections on labelled scenes against what is known to be there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fieldfare.common.errors import InputError

from ...rasters.opening import open_raster
from ..data.patches import read_part
from ..data.table import LabelledScene
from ..inference.predict import Detections, Predictor
from ..inference.run import InferSettings, detect, prepare
from . import greenness
from .matching import Counts, counts_of, pair_boxes, pair_points

OVERLAP = 0.5
"""IoU from which a box is right."""


@dataclass(frozen=True)
class Compared:
    """One scene's detections and objects, in pixels of the raster.

    Attributes:
        counts: by the distance of middles; of all classes together.
        boxed: by IoU, where boxes are known and found.
        pairs: (M,) which detection each object has, by distance; -1 is none.
    """

    scene: LabelledScene
    found: Detections
    true: np.ndarray
    pairs: np.ndarray
    counts: Counts
    boxed: Counts | None = None


@dataclass
class Scores:
    """One model on all scenes of a split.

    Attributes:
        scenes: in the order of the table.
    """

    model: str
    scenes: list[Compared] = field(default_factory=list)

    def rows(self) -> list[dict[str, object]]:
        """A row for each area, by the alphabet, and one for all."""
        areas = sorted({each.scene.area for each in self.scenes})
        kept = [[each for each in self.scenes if each.scene.area == area] for area in areas]
        rows = [self._row(area, some) for area, some in zip(areas, kept, strict=True)]
        return [*rows, self._row("all", self.scenes)] if len(areas) > 1 else rows

    def _row(self, area: str, scenes: Sequence[Compared]) -> dict[str, object]:
        total = sum((each.counts for each in scenes), Counts())
        row: dict[str, object] = {
            "area": area,
            "model": self.model,
            "scenes": len(scenes),
            "objects": total.right + total.missed,
            "found": total.right + total.wrong,
            "precision": total.precision,
            "recall": total.recall,
            "f1": total.f1,
        }
        boxed = [each.boxed for each in scenes if each.boxed is not None]
        row["f1_iou50"] = sum(boxed, Counts()).f1 if boxed else None
        return row


def compare_model(
    scenes: Sequence[LabelledScene],
    settings: InferSettings,
    predictor: Predictor,
    *,
    reach: float,
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Run a model as `infer` does and match what it finds.

    Args:
        reach: metres that a middle may lie from an object's.

    Raises:
        InputError: an object's class that the model does not know.
    """
    scores = Scores(settings.model.rsplit("/", 1)[-1].removesuffix(".safetensors"))
    for number, labelled in enumerate(scenes, start=1):
        window = labelled.window
        top, left = int(window.row_off), int(window.col_off)
        box = (top, left, int(window.height), int(window.width))
        here = replace(settings, window=box, gsd=settings.gsd or labelled.gsd[0])
        job = prepare(labelled.image, here, predictor)
        with job.scene as scene, open_raster(labelled.image) as raster:
            found = detect(job, here, predictor)
            across = raster.width / scene.dataset.width
            down = raster.height / scene.dataset.height
        moved = found.boxes * (across, down, across, down)
        own = Detections(moved, found.scores, found.classes)
        scores.scenes.append(_compared(labelled, own, predictor.config.classes, reach, boxes=True))
        progress(number)
    return scores


def compare_greenness(
    scenes: Sequence[LabelledScene],
    *,
    gsd: float,
    reach: float,
    settings: greenness.Maxima | None = None,
) -> Scores:
    """The baseline on the same scenes; every object counts as a tree.

    Args:
        gsd: metres per pixel that greenness is looked at with.
    """
    scores = Scores(greenness.NAME)
    for labelled in scenes:
        window = labelled.window
        part = (window.row_off, window.col_off, window.height, window.width)
        image, _, _ = read_part(labelled, part, gsd, classes=("tree",), point_size=1.0)
        points = greenness.green_maxima(image.transpose(2, 0, 1), gsd, settings)
        scale = (window.width / image.shape[1], window.height / image.shape[0])
        moved = points * scale + (window.col_off, window.row_off)
        found = Detections(
            np.column_stack((moved, moved)), np.ones(len(moved)), np.zeros(len(moved), np.int64)
        )
        names = tuple(sorted(set(labelled.labels.names))) or ("",)
        scores.scenes.append(_compared(labelled, found, names, reach, boxes=False))
    return scores


def _compared(
    scene: LabelledScene,
    found: Detections,
    classes: tuple[str, ...],
    reach: float,
    *,
    boxes: bool,
) -> Compared:
    labels, window = scene.labels, scene.window
    numbers = labels.numbers(classes)
    if (numbers < 0).any():
        name = labels.names[int(np.argmax(numbers < 0))]
        raise InputError(
            f"{scene.image}: has objects of class {name!r}, the model knows {', '.join(classes)}"
        )
    inside = labels.within(
        window.col_off,
        window.row_off,
        window.col_off + window.width,
        window.row_off + window.height,
    )
    true, kinds = labels.boxes[inside], numbers[inside]
    middles, metres = labels.centres[inside], np.array(scene.gsd)
    boxed = Counts() if boxes and len(true) and not labels.are_points[inside].any() else None
    pairs = np.full(len(true), -1, np.int64)
    for kind in range(len(classes)):
        mine, theirs = np.flatnonzero(found.classes == kind), np.flatnonzero(kinds == kind)
        own = pair_points(found.centres[mine] * metres, middles[theirs] * metres, reach)
        pairs[theirs[own >= 0]] = mine[own[own >= 0]]
        if boxed is not None:
            overlap = pair_boxes(found.boxes[mine], true[theirs], OVERLAP)
            boxed += counts_of(overlap, len(mine))
    return Compared(scene, found, true, pairs, counts_of(pairs, len(found)), boxed)
