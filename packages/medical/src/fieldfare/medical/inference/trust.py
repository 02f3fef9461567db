# SPDX-License-Identifier: Apache-2.0
"""Whether a case is like what the network knows: what is seen of it while it is predicted."""

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.trust.features import Array, Tap
from fieldfare.common.trust.knowledge import Judgement, Knowledge

from ..networks.config import NetworkConfig
from .predict import Predictor

QUALITY = "Dice of the whole tumour"

SIGNS = ("WT sureness", "TC sureness", "WT size")
"""What is looked at besides the layers: the Dice of WT and of TC that the probabilities promise,
were they right, and the logarithm of the volume of WT in ml."""


def layers_of(config: NetworkConfig) -> tuple[str, ...]:
    """The network's layers that are looked at: the one before the head, and a deep one.

    Of the layers of the reversible U-Net the finest and the coarsest of the decoder tell damaged
    validation cases from clean ones best; blur hardly shows elsewhere.
    """
    if config.architecture == "reversible_unet":
        levels = len(config.channels)
        deep = f"decoder.{levels - 2}" if levels > 2 else f"encoder.{levels - 1}"
        return "decoder.0", deep
    return "decoder.0", "pyramid"


class Observer:
    """Calls a predictor, and keeps the mean over all tiles of what its layers show.

    To be used as a context, within which `fieldfare.common.windows.stream` calls it.
    """

    def __init__(self, predictor: Predictor, layers: tuple[str, ...]) -> None:
        self._predictor = predictor
        self._tap = Tap(predictor.network, layers)
        self._sums: list[Array] = [np.zeros(())] * len(layers)
        self._count = 0

    def __enter__(self) -> "Observer":
        self._tap.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._tap.__exit__(None, None, None)

    def __call__(
        self, tiles: NDArray[np.float32], starts: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """As the predictor's."""
        result = self._predictor(tiles, starts)
        found = self._tap.take()
        self._sums = [
            total + part.sum(axis=0) for total, part in zip(self._sums, found, strict=True)
        ]
        self._count += len(found[0])
        return result

    def features(self) -> list[Array] | None:
        """Of each layer, (1, F); None where no tile was predicted."""
        return [total[None] / self._count for total in self._sums] if self._count else None


def signs_of(probabilities: NDArray[np.floating], spacing: tuple[float, ...]) -> Array:
    """SIGNS of a case, (1, 3).

    Args:
        probabilities: (3, x, y, z) of WT, TC, ET.
        spacing: of their grid, mm.
    """
    sure = []
    for region in probabilities[:2]:
        chosen = region >= 0.5
        inside = float(region[chosen].sum(dtype=np.float64))
        total = float(region.sum(dtype=np.float64)) + np.count_nonzero(chosen)
        sure.append(2 * inside / total if total > 1 else 0.0)
    volume = np.count_nonzero(probabilities[0] >= 0.5) * float(np.prod(spacing)) / 1000
    return np.array([[*sure, np.log1p(volume)]])


def judge(knowledge: Knowledge, features: list[Array] | None, signs: Array) -> Judgement | None:
    """On a case; None where nothing of it was predicted."""
    if features is None:
        return None
    return knowledge.judge(*knowledge.rows(features, signs))
