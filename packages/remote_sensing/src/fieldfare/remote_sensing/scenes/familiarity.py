# SPDX-License-Identifier: Apache-2.0
"""How the blocks of a scene stand to what a model knows, gathered while tiles are predicted."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fieldfare.common.trust.features import Array
from fieldfare.common.trust.knowledge import Judgement, Knowledge

HELD = 0.5
"""Share of a block that must hold data."""

_LEAST_VARIANCE = 1e-12

Blocks = tuple[int, int]
"""How many blocks lie down and across a tile."""


def blocks_of(shape: tuple[int, ...], side: int) -> Blocks:
    """How many blocks of about `side` pixels lie along the two axes of a tile; at least one."""
    return max(1, shape[0] // side), max(1, shape[1] // side)


def pooled_blocks(output: Tensor, blocks: Blocks) -> Array:
    """Mean, and logarithm of the standard deviation, of each channel over blocks.

    Args:
        output: (N, C, H, W).

    Returns:
        (N * blocks, 2 C), blocks of an image from the top left, row by row.
    """
    whole = output.float()
    mean = F.adaptive_avg_pool2d(whole, blocks)
    square = F.adaptive_avg_pool2d(whole.square(), blocks)
    spread = (square - mean.square()).clamp(min=_LEAST_VARIANCE).log() / 2
    both = torch.cat((mean, spread), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    found: Array = both.double().cpu().numpy()
    return found


class Noted:
    """Features and signs of blocks that a predictor noted of tiles.

    Args:
        layers: how many are looked at.
    """

    def __init__(self, layers: int) -> None:
        self.features: list[list[Array]] = [[] for _ in range(layers)]
        self.signs: list[Array] = []

    def take(self) -> tuple[list[Array], Array]:
        """Features of each layer (N, F) and signs (N, S) noted since the last time."""
        features = [np.concatenate(parts) for parts in self.features]
        signs = np.concatenate(self.signs)
        self.features, self.signs = [[] for _ in self.features], []
        return features, signs


class Gathering:
    """Gathers rows of `Knowledge.rows` over the tiles of a scene, once for each tile.

    Args:
        knowledge: of the model.
        side: of a block in pixels.
    """

    def __init__(self, knowledge: Knowledge, side: int) -> None:
        self._knowledge, self._side = knowledge, side
        self._held: dict[tuple[int, ...], np.ndarray] = {}
        self._new: list[np.ndarray] = []
        self._width = 4 + len(knowledge.layers) + len(knowledge.signs)

    def hold(self, start: tuple[int, ...], valid: np.ndarray) -> None:
        """Note which pixels of a tile, (bands, h, w) bool, hold data."""
        inside = torch.from_numpy(valid.any(axis=0)).float()[None, None]
        share = F.adaptive_avg_pool2d(inside, blocks_of(valid.shape[1:], self._side))
        self._held[start] = share.flatten().numpy() >= HELD

    def add(self, starts: np.ndarray, features: list[Array], signs: Array) -> None:
        """Features (N * blocks, F) of each layer and signs (N * blocks, S) of N tiles of one size.

        Args:
            starts: (N, 2) of the tiles, each of which was given to `hold`.
        """
        rows, groups = self._knowledge.rows(features, signs)
        count = len(rows) // len(starts)
        for number, start in enumerate(starts):
            held = self._held.pop(tuple(int(place) for place in start))
            here = slice(number * count, (number + 1) * count)
            name = np.column_stack((np.tile(start, (count, 1)), np.arange(count), groups[here]))
            self._new.append(np.concatenate((name, rows[here]), axis=1)[held])

    def take(self) -> np.ndarray:
        """Gathered since the last time: tile, block, group, row; (N, 4 + layers + signs)."""
        found = np.concatenate([np.empty((0, self._width)), *self._new])
        self._new = []
        return found

    def judgement(self, gathered: np.ndarray) -> Judgement | None:
        """On all that was taken, in any order, some perhaps twice; None where nothing was."""
        if not len(gathered):
            return None
        _, first = np.unique(gathered[:, :3], axis=0, return_index=True)
        once = gathered[first]
        return self._knowledge.judge(once[:, 4:], once[:, 3])
