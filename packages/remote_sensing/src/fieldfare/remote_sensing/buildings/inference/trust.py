# SPDX-License-Identifier: Apache-2.0
"""What a scene looks like to the network, block by block, for `fieldfare.common.trust`.

Two things are looked at while tiles are predicted: the encoder's features at strides 2 and 32
(texture and colour, and what the network makes of them), and how sure the probabilities are.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldfare.common.trust.features import Array
from fieldfare.common.trust.knowledge import Judgement, Knowledge

from .predict import Predictor

BLOCK = 128
"""Side in pixels of what is judged at a time."""

LAYERS = ("stride 2", "stride 32")
"""Features of the encoder that are looked at: the first and the last."""

SIGNS = ("likely IoU", "unsure", "building")
"""Of the building probabilities p of a block: their own estimate of the IoU, the mean of
4 p (1 - p), and the share above 1/2."""

HELD = 0.5
"""Share of a block that must hold data."""

_LEAST_VARIANCE = 1e-12


def pooled_blocks(output: Tensor, count: int) -> Array:
    """Mean, and logarithm of the standard deviation, of each channel over count x count blocks.

    Args:
        output: (N, C, H, W).

    Returns:
        (N * count * count, 2 C), blocks of an image from the top left, row by row.
    """
    whole = output.float()
    mean = F.adaptive_avg_pool2d(whole, count)
    square = F.adaptive_avg_pool2d(whole.square(), count)
    spread = (square - mean.square()).clamp(min=_LEAST_VARIANCE).log() / 2
    both = torch.cat((mean, spread), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    found: Array = both.double().cpu().numpy()
    return found


def signs_of(probabilities: np.ndarray, count: int) -> Array:
    """SIGNS of count x count blocks: (N, H, W) -> (N * count * count, 3), order as above."""
    p = torch.from_numpy(np.ascontiguousarray(probabilities)).float()[:, None]
    building = (p > 0.5).float()
    parts = (p * building, building + p * (1 - building), 4 * p * (1 - p), building)
    both, either, unsure, share = (F.adaptive_avg_pool2d(part, count) for part in parts)
    # Where next to nothing is found, the little that might be there decides.
    likely = (both + 1e-3) / (either + 1e-3)
    stacked = torch.cat((likely, unsure, share), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    found: Array = stacked.double().numpy()
    return found


class Look:
    """A predictor that also notes what it sees; called as the predictor itself.

    Args:
        predictor: of the whole depth; of another one nothing is noted.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.features: list[list[Array]] = [[] for _ in LAYERS]
        self.signs: list[Array] = []

    def __call__(self, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """As `Predictor.__call__`."""
        with features_of(self._predictor.network) as kept:
            found = self._predictor(tiles, starts)
        count = blocks_of(tiles.shape[-1])
        for place, maps in enumerate((kept[0], kept[-1])):
            self.features[place].append(pooled_blocks(maps, count))
        self.signs.append(signs_of(found[:, 0], count))
        return found

    def take(self) -> tuple[list[Array], Array]:
        """Features of each layer (N, F) and signs (N, 3) noted since the last time."""
        features = [np.concatenate(parts) for parts in self.features]
        signs = np.concatenate(self.signs)
        self.features, self.signs = [[] for _ in LAYERS], []
        return features, signs


class Familiarity:
    """Gathers rows of `Knowledge.rows` over the tiles of a scene, once for each tile.

    Args:
        knowledge: of the model.
        predictor: runs it.
    """

    def __init__(self, knowledge: Knowledge, predictor: Predictor) -> None:
        self._knowledge, self._look = knowledge, Look(predictor)
        self._held: dict[tuple[int, ...], np.ndarray] = {}
        self._new: list[np.ndarray] = []

    def hold(self, start: tuple[int, ...], valid: np.ndarray) -> None:
        """Note which pixels of a tile, (bands, h, w) bool, hold data."""
        inside = torch.from_numpy(valid.any(axis=0)).float()[None, None]
        share = F.adaptive_avg_pool2d(inside, blocks_of(valid.shape[-1]))
        self._held[start] = share.flatten().numpy() >= HELD

    def __call__(self, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """As `Predictor.__call__`."""
        found = self._look(tiles, starts)
        rows, groups = self._knowledge.rows(*self._look.take())
        count = blocks_of(tiles.shape[-1]) ** 2
        for number, start in enumerate(starts):
            held = self._held.pop(tuple(int(place) for place in start))
            here = slice(number * count, (number + 1) * count)
            name = np.column_stack((np.tile(start, (count, 1)), np.arange(count), groups[here]))
            self._new.append(np.concatenate((name, rows[here]), axis=1)[held])
        return found

    def take(self) -> np.ndarray:
        """What was gathered since the last time, (N, 4 + signs): tile, block, group, row."""
        width = 4 + len(LAYERS) + len(SIGNS)
        found = np.concatenate([np.empty((0, width)), *self._new])
        self._new = []
        return found

    def judgement(self, gathered: np.ndarray) -> Judgement | None:
        """On all that was taken, in any order, some perhaps twice; None where nothing was."""
        if not len(gathered):
            return None
        _, first = np.unique(gathered[:, :3], axis=0, return_index=True)
        once = gathered[first]
        return self._knowledge.judge(once[:, 4:], once[:, 3])


def blocks_of(side: int) -> int:
    """How many blocks lie along a tile."""
    return max(1, side // BLOCK)


@contextlib.contextmanager
def features_of(network: nn.Module) -> Iterator[Sequence[Tensor]]:
    """Within it the encoder's features, finest first, are kept at a forward."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
        kept[:] = output

    handle = network.get_submodule("network.encoder").register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()
