# SPDX-License-Identifier: Apache-2.0
"""ONNX export of a building network."""

from pathlib import Path

import torch
from torch.export import Dim

from fieldfare.common.efficiency import export
from fieldfare.common.errors import InputError

from .building_network import PAD, BuildingNetwork

TOLERANCE = 1e-3
"""Of the largest logit, at least 1: ReLU6 and 60 layers amplify the last bit."""


def export_onnx(network: BuildingNetwork, target: Path, *, tile: int = 512) -> float:
    """Write the network, at its depth: `image` (N, bands, H, W) in [0, 1] -> `logits`.

    The batch is free, height and width are fixed to tile: with free ones torch 2.15 had not traced
    U-Net++ after three minutes.

    Args:
        network: of any architecture.
        target: the file.
        tile: height and width, a multiple of 64.

    Returns:
        Largest difference between ONNX Runtime and torch on random images.

    Raises:
        InputError: the export packages are not installed, tile is no multiple of 64, or the
            network is PEM, which has no ONNX form.
        RunError: the exported network disagrees by more than `TOLERANCE`; nothing is written.
    """
    if tile < PAD or tile % PAD:
        raise InputError(f"--tile {tile}: must be a multiple of {PAD}")
    if network.config.architecture == "pem":
        raise InputError("pem has no ONNX form: what its queries find is sorted out in Python")
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((2, network.config.in_channels, tile, tile), generator=generator)
    return export.export_onnx(
        network,
        [image],
        target,
        input_names=["image"],
        output_name="logits",
        dynamic_shapes={"image": {0: Dim("batch")}},
        tolerance=TOLERANCE,
        install="fieldfare-remote-sensing[onnx]",
    )
