# SPDX-License-Identifier: Apache-2.0
"""ONNX export of the network in its fast form."""

from pathlib import Path

import torch

from fieldfare.common.efficiency import export

from .deanet import DEANet
from .fast import hastened

TOLERANCE = 1e-4
"""Of the largest output, at least 1."""


def export_onnx(model: DEANet, target: Path, *, tile: int = 256) -> float:
    """Write the network as ONNX: hazy (N, C, tile, tile) in [0, 1] -> clear, not clipped.

    Height and width are fixed; the batch is free.

    Returns:
        Largest difference between ONNX Runtime and torch on random input.

    Raises:
        InputError: the export packages are not installed.
        RunError: the exported network disagrees by more than `TOLERANCE`; nothing is written.
    """
    generator = torch.Generator().manual_seed(0)
    return export.export_onnx(
        hastened(model),
        [torch.rand((2, model.config.channels, tile, tile), generator=generator)],
        target,
        input_names=["hazy"],
        output_name="clear",
        dynamic_shapes={"x": {0: "batch"}},
        tolerance=TOLERANCE,
        install="fieldfare-remote-sensing[onnx]",
    )
