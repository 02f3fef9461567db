# SPDX-License-Identifier: Apache-2.0
"""What a scene looks like to a detector, block by block, for `fieldfare.common.trust`.

Two things are looked at while tiles are searched: features at strides 2 and 32 (texture and colour,
and what the network makes of them), and how sure the detections are.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from fieldfare.common.trust.features import Array
from fieldfare.common.trust.knowledge import Knowledge

from ...scenes.familiarity import Blocks, Gathering, Noted, blocks_of, pooled_blocks
from .predict import Detections, Predictor

BLOCK = 256
"""Side in pixels of what is judged at a time: large enough to hold some objects."""

LAYERS = ("stride 2", "stride 32")
"""Of the network: the first, and the last before its neck."""

SIGNS = ("likely F1", "unsure", "density")
"""Of the confidences p of a block: their own estimate of the F1, the mean of 4 p (1 - p) over them,
and the logarithm of one and the number above the threshold in `BLOCK` x `BLOCK` pixels. Boxes of
one object are not thinned out before."""

LEAST = 0.02
"""Confidence below which nothing is looked at."""


class Look(Noted):
    """A predictor that also notes what it sees.

    Args:
        predictor: of a network whose config has the threshold.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(len(LAYERS))
        self._predictor = predictor

    def __call__(self, tiles: np.ndarray, least: float) -> list[Detections]:
        """As `Predictor.__call__`."""
        predictor = self._predictor
        with _outputs_of(predictor.network, self._layers()) as kept:
            found = predictor(tiles, min(least, LEAST))
        shape = (tiles.shape[2], tiles.shape[3])
        blocks = blocks_of(shape, BLOCK)
        for place, name in enumerate(self._layers()):
            self.features[place].append(pooled_blocks(kept[name], blocks))
        threshold = predictor.config.threshold
        self.signs += [signs_of(each, threshold, shape, blocks) for each in found]
        return [each.take(each.scores >= least) for each in found]

    def _layers(self) -> tuple[str, str]:
        kinds = [row.kind for row in self._predictor.config.table.rows]
        return "layer0", f"layer{kinds.index('sppf')}"


class Familiarity(Gathering):
    """Gathers how the tiles of a scene stand to what the model knows, while they are searched.

    Args:
        knowledge: of the model.
        predictor: runs it.
    """

    def __init__(self, knowledge: Knowledge, predictor: Predictor) -> None:
        super().__init__(knowledge, BLOCK)
        self._look = Look(predictor)

    def __call__(self, tiles: np.ndarray, least: float, starts: np.ndarray) -> list[Detections]:
        """As `Predictor.__call__`; each of `starts`, (N, 2), was given to `hold`."""
        found = self._look(tiles, least)
        self.add(starts, *self._look.take())
        return found


def block_numbers(points: np.ndarray, shape: tuple[int, int], blocks: Blocks) -> np.ndarray:
    """Number of the block that each point, (N, 2) x and y, of a tile of this shape lies in."""
    down, across = blocks
    rows = np.floor(points[:, 1] * down / shape[0]).clip(0, down - 1)
    columns = np.floor(points[:, 0] * across / shape[1]).clip(0, across - 1)
    found: np.ndarray = (rows * across + columns).astype(np.int64)
    return found


def signs_of(found: Detections, threshold: float, shape: tuple[int, int], blocks: Blocks) -> Array:
    """SIGNS of the blocks of a tile, (blocks, 3), in the order of `pooled_blocks`."""
    p, sure = found.scores, found.scores >= threshold
    numbers, count = block_numbers(found.centres, shape, blocks), blocks[0] * blocks[1]

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, weights.astype(np.float64), minlength=count)

    # Where next to nothing is found, the little that might be there decides.
    likely = (2 * total(p * sure) + 1e-3) / (total(sure) + total(p) + 1e-3)
    unsure = total(4 * p * (1 - p)) / np.maximum(total(np.ones_like(p)), 1)
    density = np.log1p(total(sure) * BLOCK**2 * count / (shape[0] * shape[1]))
    return np.column_stack((likely, unsure, density))


@contextlib.contextmanager
def _outputs_of(network: nn.Module, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Within it the outputs of layers are kept at a forward."""
    kept: dict[str, Tensor] = {}

    def keeping(name: str) -> Any:
        def keep(module: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            kept[name] = output

        return keep

    handles = [network.get_submodule(name).register_forward_hook(keeping(name)) for name in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
