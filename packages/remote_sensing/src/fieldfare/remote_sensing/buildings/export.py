# SPDX-License-Identifier: Apache-2.0
"""ONNX export of a building network, checked against torch before the file is kept."""

import copy
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim

from fieldfare.common.errors import InputError, RunError
from fieldfare.common.files import atomic_path

from .network import PAD, BuildingNetwork

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
        InputError: the export packages are not installed, or tile is no multiple of 64.
        RunError: the exported network disagrees by more than `TOLERANCE`; nothing is written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("export needs: pip install 'fieldfare-remote-sensing[onnx]'") from None
    if tile < PAD or tile % PAD:
        raise InputError(f"--tile {tile}: must be a multiple of {PAD}")
    network = copy.deepcopy(network).eval().cpu()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((2, network.config.in_channels, tile, tile), generator=generator)
    with atomic_path(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notes about names and shapes
        torch.onnx.export(
            network,
            (image,),
            temporary,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes={"image": {0: Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        with torch.inference_mode():
            wanted = network(image).numpy()
        got = session.run(None, {"image": image.numpy()})[0]
        difference = float(np.abs(got - wanted).max())
        if difference > TOLERANCE * max(1.0, float(np.abs(wanted).max())):
            raise RunError(
                f"{target}: ONNX Runtime and torch differ by {difference:.2g}; nothing was written"
            )
    return difference
