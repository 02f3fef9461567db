# SPDX-License-Identifier: Apache-2.0
"""Training pairs: high-resolution tiles and their reduced copies, drawn reproducibly."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw

from .degradations import DegradationRange, degrade
from .reduction import reduce_bicubic

LONGEST_STRIDE = 32
"""Of the network that `perceptual_weight` compares by, in high-resolution pixels."""


class PairDataset(Dataset[dict[str, Tensor]]):
    """Random aligned crops under one of the eight symmetries of the square, with time and noise.

    Indexed with a `Draw`; everything random comes from it. One epoch shows each tile once. `shift`
    (rows, columns) is for the feature distance, see `training.Objective`.

    Args:
        tiles: (H, W, C) uint8 high-resolution images.
        scale: reduction factor; tiles are cut to a multiple of it.
        patch: side of the crop in low-resolution pixels.
        times: T of the diffusion.
        final_share: share of draws at t = T, where one step must do all; the rest is uniform.
        own_share: share of draws marked `own`; see `training.Objective`.
        degradations: what the low-resolution images went through; clean reductions when None.
    """

    def __init__(
        self,
        tiles: list[np.ndarray],
        *,
        scale: int,
        patch: int,
        times: int,
        final_share: float,
        own_share: float,
        degradations: DegradationRange | None = None,
    ) -> None:
        self.scale, self.patch, self.times = scale, patch, times
        self.final_share, self.own_share = final_share, own_share
        self.degradations = degradations
        self.high, self.low = [], []
        for tile in tiles:
            height, width = (side - side % scale for side in tile.shape[:2])
            if min(height, width) < patch * scale:
                raise InputError(f"a tile of {height} x {width} is smaller than the crop")
            self.high.append(tile[:height, :width])
            self.low.append(reduce_bicubic(self.high[-1], scale))

    def __len__(self) -> int:
        return len(self.high)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = draw.rng()
        high, low, scale = self.high[draw.index], self.low[draw.index], self.scale
        top, left = (int(rng.integers(side - self.patch + 1)) for side in low.shape[:2])
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        final, own = rng.random() < self.final_share, rng.random() < self.own_share
        how = self.degradations.draw(rng) if self.degradations else None
        if how:
            low = degrade(high, scale, how, rng)
        low = low[top : top + self.patch, left : left + self.patch]
        high = high[top * scale :, left * scale :][: self.patch * scale, : self.patch * scale]
        noise = rng.standard_normal((high.shape[2], *high.shape[:2]), dtype=np.float32)
        return {
            "high": self._tensor(high, turns, mirrored),
            "low": self._tensor(low, turns, mirrored),
            "t": torch.tensor(self.times if final else int(rng.integers(1, self.times + 1))),
            "own": torch.tensor(own),
            "noise": torch.from_numpy(noise),
            "shift": torch.from_numpy(rng.integers(0, LONGEST_STRIDE, 2)),
        }

    @staticmethod
    def _tensor(image: np.ndarray, turns: int, mirrored: bool) -> Tensor:
        image = np.rot90(image, turns)
        if mirrored:
            image = image[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255
