# SPDX-License-Identifier: Apache-2.0
"""ONNX export of the network."""

from pathlib import Path

import torch

from fieldfare.common.efficiency import export
from fieldfare.common.errors import InputError

from .model import SuperResolutionModel

TOLERANCE = 1e-4
"""Of the largest output, at least 1."""


def export_onnx(model: SuperResolutionModel, target: Path, *, tile: int = 64) -> float:
    """Write the network as ONNX: inputs x, mu (N, C, H, W) and t (1,), output of the same shape.

    Height and width are fixed to tile x scale; the batch is free. The sampler stays outside: its
    tables are in docs/ediffsr.md.

    Returns:
        Largest difference between ONNX Runtime and torch on random input.

    Raises:
        InputError: the export packages are not installed.
        RunError: the exported network disagrees by more than `TOLERANCE`; nothing is written.
    """
    if model.config.network.cpem != "published":
        raise InputError("export knows only models with the published CPEM")
    side = tile * model.config.network.scale
    generator = torch.Generator().manual_seed(0)
    shape = (2, model.config.network.channels, side, side)
    return export.export_onnx(
        model.network,
        [
            torch.rand(shape, generator=generator),
            torch.rand(shape, generator=generator),
            torch.tensor([float(model.sde.steps)]),
        ],
        target,
        input_names=["x", "mu", "t"],
        output_name="output",
        dynamic_shapes={"x": {0: "batch"}, "condition": {0: "batch"}, "t": None},
        tolerance=TOLERANCE,
        install="fieldfare-remote-sensing[onnx]",
    )
