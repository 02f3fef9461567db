# SPDX-License-Identifier: Apache-2.0
"""ONNX export of a segmentation network."""

from pathlib import Path

import torch
from torch.export import Dim

from fieldfare.common.efficiency import export
from fieldfare.common.errors import InputError

from .create import Network

TOLERANCE = 1e-3
"""Of the largest logit, at least 1: norms over a whole volume add up in another order."""


def export_onnx(network: Network, target: Path, *, tile: int = 64) -> float:
    """Write a network as ONNX: `image` (N, modalities, *size), z-scored, to `logits`.

    The batch is free, every side is fixed to tile.

    Args:
        network: of `networks.create.create_network`.
        target: the file.
        tile: side, a multiple of the network's stride.

    Returns:
        Largest difference between ONNX Runtime and torch on random images.

    Raises:
        InputError: the export packages are not installed, or tile does not suit the network.
        RunError: the exported network disagrees by more than `TOLERANCE`; nothing is written.
    """
    if tile < network.stride or tile % network.stride:
        raise InputError(f"--tile {tile}: must be a multiple of {network.stride}")
    generator = torch.Generator().manual_seed(0)
    sides = [tile] * network.config.ndim
    image = torch.randn((2, len(network.config.modalities), *sides), generator=generator)
    return export.export_onnx(
        network,
        [image],
        target,
        input_names=["image"],
        output_name="logits",
        dynamic_shapes={"image": {0: Dim("batch")}},
        tolerance=TOLERANCE,
        install="fieldfare-medical[onnx]",
    )
