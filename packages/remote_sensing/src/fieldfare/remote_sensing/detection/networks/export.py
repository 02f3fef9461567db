# SPDX-License-Identifier: Apache-2.0
"""ONNX export of a detector."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from fieldfare.common.blocks.fuse import fuse
from fieldfare.common.efficiency import export
from fieldfare.common.errors import InputError

from .head import decode
from .leyolo import STRIDES, LeYOLO

TOLERANCE = 1e-3
"""Of the largest value, at least 1."""


class Decoded(nn.Module):
    """A network, its batch norms folded, that gives boxes and scores."""

    def __init__(self, network: LeYOLO) -> None:
        super().__init__()
        self.network = fuse(network)

    def forward(self, image: Tensor) -> Tensor:
        """See `head.decode`."""
        return decode(self.network(image), STRIDES)


def export_onnx(network: LeYOLO, target: Path, *, tile: int = 576) -> float:
    """Write the network: `image` (N, bands, H, W) in [0, 1] -> `boxes` (N, 4 + classes, A).

    A box is centre x, centre y, width, height in pixels, then the scores; thinning out is left to
    the caller. The batch is free, height and width are fixed to tile.

    Args:
        target: the file.
        tile: height and width, a multiple of 32.

    Returns:
        Largest difference between ONNX Runtime and torch on random images.

    Raises:
        InputError: the export packages are not installed, or tile is no multiple of 32.
        RunError: the exported network disagrees by more than `TOLERANCE`; nothing is written.
    """
    if tile % STRIDES[-1]:
        raise InputError(f"--tile {tile}: must be a multiple of {STRIDES[-1]}")
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((2, network.config.in_channels, tile, tile), generator=generator)
    return export.export_onnx(
        Decoded(network).eval(),
        [image],
        target,
        input_names=["image"],
        output_name="boxes",
        dynamic_shapes={"image": {0: Dim("batch")}},
        tolerance=TOLERANCE,
        install="fieldfare-remote-sensing[onnx]",
    )
