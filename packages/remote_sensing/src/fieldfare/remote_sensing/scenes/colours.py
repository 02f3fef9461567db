# SPDX-License-Identifier: Apache-2.0
"""Whether a scene's colours are those a model knows: bands exchanged, a negative, grey for colour.

A network answers such scenes, a little worse, and its features hardly show it. Three numbers of the
bands' means do: on every scene that the packaged model knows red outweighs blue.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.weights.store import load_part

from ..rasters.reading import Scene, ValueRange
from .squares import squares

PART = "colours"
"""Under which a model file keeps what it knows."""

MARGIN = 0.05
"""In logarithms of ratios of bands: what cameras differ by. With 0.03 turned hues of the validation
scene went unseen."""

GREY = 0.3
"""As a share of the least colourful scene known: one under it is grey."""

SIDE, ACROSS, STEP = 128, 8, 4
"""Of the squares that are looked at, how many lie along an axis, and each which pixel counts."""

LEAST = 12
"""Squares of a scene that hold data: one yard may be blue, a suburb is not."""

Array = np.ndarray


def ratios(pixels: Array) -> Array:
    """(N, 3) in [0, 1] -> logarithms of red over blue and of green squared over both, (2,)."""
    red, green, blue = np.log(pixels.mean(axis=0, dtype=np.float64) + 1e-5)
    return np.array([red - blue, 2 * green - red - blue])


def colourfulness(pixels: Array) -> float:
    """(N, 3) -> mean of the largest less the smallest band, as a share of the mean brightness."""
    spread = (pixels.max(axis=1) - pixels.min(axis=1)).mean(dtype=np.float64)
    return float(spread / (pixels.mean(dtype=np.float64) + 1e-5))


@dataclass(frozen=True)
class Colours:
    """Of the scenes that a model knows.

    Attributes:
        low, high: of `ratios`.
        least: of `colourfulness`.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    least: float

    def like(self, pixels: Array) -> bool:
        """Whether the bands' ratios are within those known."""
        found = ratios(pixels)
        low, high = np.array(self.low) - MARGIN, np.array(self.high) + MARGIN
        return bool(((found >= low) & (found <= high)).all())

    def doubts(self, pixels: Array) -> list[str]:
        """Sentences on what a user should check; empty where nothing is odd.

        Args:
            pixels: (N, 3) in [0, 1], from all over a scene.
        """
        if colourfulness(pixels) < GREY * self.least:
            return ["grey image in bands of colour: the model knows coloured ones"]
        if self.like(pixels):
            return []
        if self.like(pixels[:, ::-1]):
            return [
                "bands look exchanged: the third outshines the first, as in no scene that the "
                "model knows; choose them with --bands, red first"
            ]
        if self.like(1 - pixels):
            return ["looks like a negative: with its values turned over its colours are usual"]
        return []

    def to_tensors(self) -> dict[str, Tensor]:
        """For `save_model_file(..., parts={PART: ...})`."""
        text = json.dumps(asdict(self), sort_keys=True).encode()
        return {"about": torch.frombuffer(bytearray(text), dtype=torch.uint8)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Colours":
        """Read what `to_tensors` wrote; raises ValueError on anything else."""
        try:
            about = json.loads(bytes(tensors["about"].tolist()))
            low, high = (tuple(float(v) for v in about[name]) for name in ("low", "high"))
            return cls(low, high, float(about["least"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a model's colours: {error!r}") from None


def learn_colours(scenes: Iterable[Array]) -> Colours | None:
    """From the pixels (N, 3) in [0, 1] of scenes large enough; None where there are none."""
    known = [
        (ratios(pixels), colourfulness(pixels))
        for pixels in scenes
        if len(pixels) >= LEAST * SIDE**2
    ]
    if not known:
        return None
    found = np.stack([each for each, _ in known])
    low, high = (tuple(values.tolist()) for values in (found.min(axis=0), found.max(axis=0)))
    return Colours(low, high, min(least for _, least in known))


def read_colours(path: Path) -> Colours | None:
    """What a model file keeps; None where it keeps nothing.

    Raises:
        InputError: no such file, or it is damaged.
    """
    tensors = load_part(path, PART)
    if not tensors:
        return None
    try:
        return Colours.from_tensors(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def colour_doubts(scene: Scene, values: ValueRange, known: Colours) -> list[str]:
    """`Colours.doubts` of a scene; none of one that is small."""
    found = [
        square[:, ::STEP, ::STEP].reshape(3, -1).T
        for square in squares(scene, values, SIDE, ACROSS)
    ]
    if len(found) < LEAST:
        return []
    return known.doubts(np.concatenate(found))
