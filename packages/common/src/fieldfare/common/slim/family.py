# SPDX-License-Identifier: Apache-2.0
"""What a domain tells of two models of one family, so that `fieldfare stitch` can stitch them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.utils.data import Dataset

from .stitch import StitchedNet
from .workshop import Data, Workshop


class Family(Protocol):
    """Two trained networks, all stitches between them, and what these are trained on.

    Attributes:
        network: anchors are the two, the smaller one first, their weights as given.
        data: what quality is measured on.
        settings: `training.TrainSettings`.
    """

    network: StitchedNet
    data: Data
    settings: Any

    def sample(self) -> Tensor:
        """One batch to begin with, about 100 samples."""

    def lessons(self) -> Dataset[Any]:
        """What is trained on."""

    def loss(self, network: nn.Module, batch: Any) -> Tensor:
        """Of the network as it is set: of the task, and against what the larger one says."""

    def extract(self, number: int) -> nn.Module:
        """A stitch by itself, with copies of the weights, in evaluation mode."""


@runtime_checkable
class Stitcher(Workshop, Protocol):
    """A workshop whose networks can be stitched."""

    def stitch(
        self,
        models: tuple[str, str],
        data: Sequence[Path],
        *,
        steps: int | None,
        seed: int,
        device: str,
        quiet: bool,
    ) -> Family:
        """Two models of one family, the smaller one first; the larger one is loaded afterwards.

        Args:
            data: labelled, as of `Workshop.read`.
            steps: of the training; None: as many as suit.

        Raises:
            InputError: they are of no one family, or what `load` and `read` raise.
        """
