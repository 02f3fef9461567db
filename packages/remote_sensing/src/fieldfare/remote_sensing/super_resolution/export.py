# SPDX-License-Identifier: Apache-2.0
"""ONNX export of the network, checked against torch before the file is kept."""

import warnings
from pathlib import Path

import numpy as np
import torch

from fieldfare.common.errors import InputError, RunError
from fieldfare.common.files import atomic_path

from .model import SuperResolutionModel

TOLERANCE = 1e-4


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
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("export needs: pip install 'fieldfare-remote-sensing[onnx]'") from None
    if model.config.network.cpem != "published":
        raise InputError("export knows only models with the published CPEM")
    network = model.network.eval().cpu().to(memory_format=torch.contiguous_format)
    side = tile * model.config.network.scale
    generator = torch.Generator().manual_seed(0)
    shape = (2, model.config.network.channels, side, side)
    inputs = (
        torch.rand(shape, generator=generator),
        torch.rand(shape, generator=generator),
        torch.tensor([float(model.sde.steps)]),
    )
    with atomic_path(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notes about names and shapes
        torch.onnx.export(
            network,
            inputs,
            temporary,
            input_names=["x", "mu", "t"],
            output_names=["output"],
            dynamic_shapes={"x": {0: "batch"}, "condition": {0: "batch"}, "t": None},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_inputs()]
        with torch.inference_mode():
            wanted = network(*inputs).numpy()
        got = session.run(None, {n: i.numpy() for n, i in zip(names, inputs, strict=True)})[0]
        difference = float(np.abs(got - wanted).max())
        if difference > TOLERANCE:
            raise RunError(
                f"{target}: ONNX Runtime and torch differ by {difference:.2g}, more than "
                f"{TOLERANCE}; nothing was written"
            )
    return difference
