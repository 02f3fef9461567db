# SPDX-License-Identifier: Apache-2.0
"""Training pairs: clear crops and the same under haze, drawn reproducibly."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw

from .haze import HazeRange, hazy, noise_level


@dataclass(frozen=True)
class BandOrder:
    """How the bands of a draw are shown, so that a model serves other rasters than RGB.

    Attributes:
        reversed_share: blue first, as the bands of many satellites are counted.
        single_share: one band three times, as a single band is given to the model.
    """

    reversed_share: float = 0.1
    single_share: float = 0.15

    def draw(self, count: int, rng: np.random.Generator) -> list[int]:
        """Which band stands at each place."""
        chance, one = rng.random(), int(rng.integers(count))
        if chance < self.single_share:
            return [one] * count
        if chance < self.single_share + self.reversed_share:
            return list(range(count))[::-1]
        return list(range(count))


class HazeDataset(Dataset[dict[str, Tensor]]):
    """Random crops under one of the eight symmetries of the square, clear and hazy.

    Indexed with a `Draw`; everything random comes from it. One epoch shows each tile once.

    Args:
        tiles: (H, W, 3) uint8, clear, red, green and blue.
        patch: side of the crop in pixels.
        haze: what hazes are drawn from.
        order: in which order the bands are shown.
    """

    def __init__(
        self, tiles: list[np.ndarray], *, patch: int, haze: HazeRange, order: BandOrder
    ) -> None:
        for tile in tiles:
            if min(tile.shape[:2]) < patch:
                height, width = tile.shape[:2]
                raise InputError(f"a tile of {height} x {width} is smaller than the crop")
        self.noise = [noise_level(tile) for tile in tiles]
        self.tiles, self.patch, self.haze, self.order = tiles, patch, haze, order

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = draw.rng()
        tile = self.tiles[draw.index]
        top, left = (int(rng.integers(side - self.patch + 1)) for side in tile.shape[:2])
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        clear = tile[top : top + self.patch, left : left + self.patch]
        shown = self.order.draw(tile.shape[2], rng)
        haze = self.haze.draw((self.patch, self.patch), tile.shape[2], rng)
        seen = hazy(clear, haze, rng, self.noise[draw.index])
        images = {"clear": clear, "hazy": seen}
        return {k: _tensor(image[..., shown], turns, mirrored) for k, image in images.items()}


def _tensor(image: np.ndarray, turns: int, mirrored: bool) -> Tensor:
    """(H, W, C) uint8 -> (C, H, W) float32 in [0, 1]."""
    image = np.rot90(image, turns)
    if mirrored:
        image = image[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
