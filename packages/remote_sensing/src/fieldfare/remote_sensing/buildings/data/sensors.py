# SPDX-License-Identifier: Apache-2.0
"""Which scenes teach which expert: those of its pixel size, or finer ones averaged to it."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fieldfare.common.errors import InputError

from .table import LabelledScene


@dataclasses.dataclass(frozen=True)
class CoarserScene(LabelledScene):
    """A scene read as if its pixels were larger: averaged to them, and enlarged (bilinear).

    Attributes:
        pixel: metres; that of the raster where nothing is finer.
    """

    pixel: float = 0.0

    @property
    def identity(self) -> list[Any]:
        """What tells it from another scene, for comparing runs."""
        return [*super().identity, self.pixel]

    def read(
        self, top: float, left: float, height: float, width: float, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `LabelledScene.read`."""
        metres = (height * self.gsd[1], width * self.gsd[0])
        coarse = [max(1, round(side / self.pixel)) for side in metres]
        if coarse[0] >= shape[0] or coarse[1] >= shape[1]:
            return super().read(top, left, height, width, shape)
        small, valid = super().read(top, left, height, width, (coarse[0], coarse[1]))
        pixels = torch.from_numpy(small.transpose(2, 0, 1).copy())[None].float()
        image = F.interpolate(pixels, size=shape, mode="bilinear")[0].round().byte()
        known = F.interpolate(torch.from_numpy(valid)[None, None].float(), size=shape)[0, 0] > 0.5
        return np.ascontiguousarray(image.numpy().transpose(1, 2, 0)), known.numpy()


def pixel_of(scene: LabelledScene) -> float:
    """Metres per pixel that a network sees a scene at, at best."""
    return scene.pixel if isinstance(scene, CoarserScene) else math.sqrt(math.prod(scene.gsd))


def provide(
    scenes: Sequence[LabelledScene], experts: Sequence[float], choose: Callable[[float], int]
) -> tuple[list[LabelledScene], list[str]]:
    """Scenes with those that experts lack, made of finer ones of the same split.

    Args:
        experts: pixel sizes, metres.
        choose: the expert of a pixel size.

    Returns:
        The scenes of all splits, and what was added, in words.

    Raises:
        InputError: an expert for which the split train has neither scenes nor finer ones.
    """
    found, messages = list(scenes), []
    for split in ("train", "val"):
        own = [scene for scene in scenes if scene.split == split]
        seen = {choose(pixel_of(scene)) for scene in own}
        for number, size in enumerate(experts):
            if number in seen:
                continue
            finer = [scene for scene in own if pixel_of(scene) < size]
            if not finer and split == "train":
                raise InputError(
                    f"--expert-gsd {size:g}: the table has no scene of the split train of about "
                    f"{size:g} m per pixel, and no finer one"
                )
            found += [as_coarse_as(scene, size) for scene in finer]
            if own:
                messages.append(
                    f"no scene of about {size:g} m per pixel in the split {split}: "
                    + ("finer ones are averaged to it" if finer else "that expert is not measured")
                )
    return found, messages


def as_coarse_as(scene: LabelledScene, pixel: float) -> CoarserScene:
    """A scene with pixels of that size, metres."""
    values = {f.name: getattr(scene, f.name) for f in dataclasses.fields(scene)}
    return CoarserScene(**{**values, "handles": {}, "pixel": pixel})
