# SPDX-License-Identifier: Apache-2.0
"""Training data: random patches of labelled scenes with their boxes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw

from ...rasters.reading import fill_missing
from ...scenes.table import LabelledScene
from .augmentation import orient, relight
from .objects import Objects

MOST = 1024
"""Objects in a patch."""

EMPTY = 0.5
"""What a patch holds beyond its scene, in [0, 1]."""


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Random patches at a common ground sampling distance, augmented.

    Indexed with a `Draw`; everything random comes from it. One epoch is as many patches as cover
    the scenes once.

    Args:
        scenes: whose places are drawn in proportion to their ground.
        gsd: metres per pixel of the patches.
        patch: side in pixels.
        classes: names, in the order of the network's scores.
        point_size: side in metres of a point's box.
        zoom: patches are read at a ground sampling distance up to this factor finer or coarser.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene[Objects]],
        *,
        gsd: float,
        patch: int,
        classes: tuple[str, ...],
        point_size: float,
        zoom: float,
    ) -> None:
        if not scenes:
            raise InputError("the table has no scene in the split train")
        self.scenes, self.gsd, self.patch = scenes, gsd, patch
        self.classes, self.point_size, self.zoom = classes, point_size, zoom
        self.index: list[int] = []
        for number, scene in enumerate(scenes):
            window = scene.window
            ground = window.height * scene.gsd[1] * window.width * scene.gsd[0]
            self.index += [number] * max(1, round(ground / (patch * gsd) ** 2))

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """`image` (bands, patch, patch), `boxes` (MOST, 4) and `classes` (MOST,), -1 is none."""
        rng = draw.rng()
        scene = self.scenes[self.index[draw.index]]
        zoom = math.exp(rng.uniform(-1, 1) * math.log(self.zoom))
        metres, window = self.patch * self.gsd * zoom, scene.window
        height = min(metres / scene.gsd[1], window.height)
        width = min(metres / scene.gsd[0], window.width)
        top = window.row_off + rng.random() * (window.height - height)
        left = window.col_off + rng.random() * (window.width - width)
        image, boxes, classes = read_part(
            scene,
            (top, left, height, width),
            self.gsd * zoom,
            classes=self.classes,
            point_size=self.point_size,
        )
        image, boxes = _padded(image, self.patch), boxes.clip(0, self.patch)
        image, boxes = orient(image, boxes, rng)
        image = relight(image, rng)
        if len(boxes) > MOST:
            raise InputError(
                f"{scene.image}: a patch holds {len(boxes)} objects, above {MOST}; "
                "choose a smaller --patch"
            )
        padded = np.zeros((MOST, 4), np.float32)
        numbers = np.full(MOST, -1, np.int64)
        padded[: len(boxes)], numbers[: len(boxes)] = boxes, classes
        return {
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "boxes": torch.from_numpy(padded),
            "classes": torch.from_numpy(numbers),
        }


def read_part(
    scene: LabelledScene[Objects],
    part: tuple[float, float, float, float],
    gsd: float,
    *,
    classes: tuple[str, ...],
    point_size: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A part of a scene at a ground sampling distance, with what lies on it.

    Args:
        part: top, left, height, width in pixels of the raster, fractions allowed.
        gsd: metres per pixel of the result.

    Returns:
        Image (h, w, bands) float32 in [0, 1], missing pixels filled from their neighbours; boxes
        (N, 4) in its pixels of the objects whose centre lies on a known pixel; their classes (N,).
    """
    top, left, height, width = part
    shape = (
        max(1, round(height * scene.gsd[1] / gsd)),
        max(1, round(width * scene.gsd[0] / gsd)),
    )
    pixels, valid = scene.read(top, left, height, width, shape)
    image = pixels.astype(np.float32) / 255
    if not valid.all():
        planes = np.broadcast_to(valid, (image.shape[-1], *valid.shape))
        image = fill_missing(image.transpose(2, 0, 1), planes).transpose(1, 2, 0)
    numbers = scene.labels.numbers(classes)
    found = scene.labels.within(left, top, left + width, top + height)
    found = found[numbers[found] >= 0]
    boxes = scene.labels.extended((point_size / scene.gsd[0], point_size / scene.gsd[1]))[found]
    across, down = shape[1] / width, shape[0] / height
    moved = (boxes - (left, top, left, top)) * (across, down, across, down)
    x = ((moved[:, 0] + moved[:, 2]) / 2).astype(int).clip(0, shape[1] - 1)
    y = ((moved[:, 1] + moved[:, 3]) / 2).astype(int).clip(0, shape[0] - 1)
    seen = valid[y, x]
    return image, moved[seen], numbers[found][seen]


def _padded(image: np.ndarray, side: int) -> np.ndarray:
    """Cut or continued on the right and below to a square."""
    image = image[:side, :side]
    rows, columns = side - image.shape[0], side - image.shape[1]
    if not (rows or columns):
        return image
    return np.pad(image, ((0, rows), (0, columns), (0, 0)), constant_values=EMPTY)
