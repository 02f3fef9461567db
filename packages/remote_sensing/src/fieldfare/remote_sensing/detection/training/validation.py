# SPDX-License-Identifier: Apache-2.0
"""How well a detector finds the objects of whole scenes that it does not learn from."""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ...scenes.table import LabelledScene
from ..data.objects import Objects
from ..data.patches import EMPTY, read_part
from ..evaluation.matching import Counts, counts_of, pair_points
from ..inference.predict import Detections, detections_of
from ..inference.suppression import suppress
from ..networks.head import decode
from ..networks.leyolo import STRIDES, DetectorConfig, LeYOLO

SIDE = 1024
"""Longest side in pixels of what the network sees at once."""

LEAST = 0.02
"""Confidence below which nothing is looked at."""

THRESHOLDS = np.arange(0.05, 0.96, 0.025)
OVERLAPS = (0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Part:
    """A piece of a scene at the model's pixel size: (bands, h, w) uint8 and what lies on it."""

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Choice:
    """The confidence and overlap that give the best F1, which is NaN where there is nothing."""

    f1: float
    threshold: float
    nms: float


class Validation:
    """F1 of detections whose centre lies within `reach` metres of an object's, pooled over scenes.

    Args:
        scenes: of the split val.
        point_size: side in metres of a point's box.
        reach: metres.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene[Objects]],
        config: DetectorConfig,
        *,
        point_size: float,
        reach: float,
    ) -> None:
        self.reach = reach / config.gsd
        self.parts = []
        for scene in scenes:
            for part in _pieces(scene, config.gsd):
                image, boxes, classes = read_part(
                    scene, part, config.gsd, classes=config.classes, point_size=point_size
                )
                pixels = (image * 255).round().astype(np.uint8).transpose(2, 0, 1)
                self.parts.append(Part(pixels, boxes, classes))

    def __call__(self, model: LeYOLO) -> dict[str, float]:
        choice = self.choose(model, (model.config.nms,))
        return {"f1": choice.f1, "threshold": choice.threshold}

    def choose(self, model: LeYOLO, overlaps: Sequence[float] = OVERLAPS) -> Choice:
        """The best of all thresholds and the given overlaps."""
        found = [_candidates(model, part) for part in self.parts]
        best = Choice(math.nan, 0.5, overlaps[0])
        for overlap in overlaps:
            counts = [Counts() for _ in THRESHOLDS]
            for candidates, part in zip(found, self.parts, strict=True):
                kept = suppress(candidates, overlap)
                for index, threshold in enumerate(THRESHOLDS):
                    counts[index] += self._counts(kept.take(kept.scores >= threshold), part)
            for count, threshold in zip(counts, THRESHOLDS, strict=True):
                if count.f1 > best.f1 or (math.isnan(best.f1) and not math.isnan(count.f1)):
                    best = Choice(count.f1, round(float(threshold), 3), overlap)
        return best

    def _counts(self, found: Detections, part: Part) -> Counts:
        total = Counts()
        for number in np.union1d(found.classes, part.classes):
            true = part.boxes[part.classes == number]
            middles = (true[:, :2] + true[:, 2:]) / 2
            mine = found.centres[found.classes == number]
            total += counts_of(pair_points(mine, middles, self.reach), len(mine))
        return total


def _pieces(
    scene: LabelledScene[Objects], gsd: float
) -> Iterator[tuple[float, float, float, float]]:
    """Top, left, height, width of pieces of about SIDE pixels of the model, in the raster's."""
    window = scene.window
    down, across = (
        max(1, math.ceil(length * size / gsd / SIDE))
        for length, size in ((window.height, scene.gsd[1]), (window.width, scene.gsd[0]))
    )
    height, width = window.height / down, window.width / across
    for row, column in itertools.product(range(down), range(across)):
        yield window.row_off + row * height, window.col_off + column * width, height, width


@torch.no_grad()
def _candidates(model: LeYOLO, part: Part) -> Detections:
    """What all cells above LEAST see, and nothing beyond the image."""
    image = torch.from_numpy(part.image)[None].float() / 255
    height, width = image.shape[-2:]
    pad = (0, -width % STRIDES[-1], 0, -height % STRIDES[-1])
    device = next(model.parameters()).device
    maps = model(F.pad(image, pad, value=EMPTY).to(device))
    found = detections_of(decode(maps, STRIDES)[0].cpu().numpy(), LEAST)
    x, y = found.centres.T
    return found.take((x >= 0) & (y >= 0) & (x < width) & (y < height))
