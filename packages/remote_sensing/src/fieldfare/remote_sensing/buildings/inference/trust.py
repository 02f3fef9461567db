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
from fieldfare.common.trust.knowledge import Knowledge

from ...scenes.familiarity import Blocks, Gathering, Noted, blocks_of, pooled_blocks
from .predict import Predictor

BLOCK = 128
"""Side in pixels of what is judged at a time."""

LAYERS = ("stride 2", "stride 32")
"""Features of the encoder that are looked at: the first and the last."""

SIGNS = ("likely IoU", "unsure", "building")
"""Of the building probabilities p of a block: their own estimate of the IoU, the mean of
4 p (1 - p), and the share above 1/2."""


def signs_of(probabilities: np.ndarray, blocks: Blocks) -> Array:
    """SIGNS of blocks: (N, H, W) -> (N * blocks, 3), in the order of `pooled_blocks`."""
    p = torch.from_numpy(np.ascontiguousarray(probabilities)).float()[:, None]
    building = (p > 0.5).float()
    parts = (p * building, building + p * (1 - building), 4 * p * (1 - p), building)
    both, either, unsure, share = (F.adaptive_avg_pool2d(part, blocks) for part in parts)
    # Where next to nothing is found, the little that might be there decides.
    likely = (both + 1e-3) / (either + 1e-3)
    stacked = torch.cat((likely, unsure, share), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    found: Array = stacked.double().numpy()
    return found


class Look(Noted):
    """A predictor that also notes what it sees; called as the predictor itself.

    Args:
        predictor: of the whole depth; of another one nothing is noted.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(len(LAYERS))
        self._predictor = predictor

    def __call__(self, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """As `Predictor.__call__`."""
        with features_of(self._predictor.network) as kept:
            found = self._predictor(tiles, starts)
        blocks = blocks_of(tiles.shape[2:], BLOCK)
        for place, maps in enumerate((kept[0], kept[-1])):
            self.features[place].append(pooled_blocks(maps, blocks))
        self.signs.append(signs_of(found[:, 0], blocks))
        return found


class Familiarity(Gathering):
    """Gathers how the tiles of a scene stand to what the model knows, while they are predicted.

    Args:
        knowledge: of the model.
        predictor: runs it.
    """

    def __init__(self, knowledge: Knowledge, predictor: Predictor) -> None:
        super().__init__(knowledge, BLOCK)
        self._look = Look(predictor)

    def __call__(self, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """As `Predictor.__call__`."""
        found = self._look(tiles, starts)
        self.add(starts, *self._look.take())
        return found


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
