# SPDX-License-Identifier: Apache-2.0
"""ONNX export of a network, checked against torch before the file is kept."""

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, RunError
from ..files import atomic_path


def export_onnx(
    network: nn.Module,
    inputs: Sequence[Tensor],
    target: Path,
    *,
    input_names: Sequence[str],
    output_name: str | Sequence[str],
    dynamic_shapes: dict[str, Any],
    tolerance: float,
    install: str,
) -> float:
    """Write a network as ONNX, if ONNX Runtime agrees with torch on the inputs.

    Args:
        network: exported as it is in evaluation, on the CPU; itself unchanged.
        inputs: for tracing and for the check, real, on the CPU.
        target: the file, replaced atomically.
        output_name: of its one output, or of each where it gives a tuple.
        dynamic_shapes: axes that stay free, by parameter of `forward` in the order of the inputs (a
            tuple for `*inputs`); see `torch.onnx.export`.
        tolerance: allowed difference, as a share of the largest absolute output, at least of 1.
        install: what pip installs the export packages with: `distribution[extra]`.

    Returns:
        Largest absolute difference between ONNX Runtime and torch.

    Raises:
        InputError: the export packages are not installed.
        RunError: the difference is above the tolerance, or not a number, or an axis did not stay
            free; nothing is written.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(f"export needs: pip install '{install}'") from None
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it tells what it does not optimise
    names = [output_name] if isinstance(output_name, str) else list(output_name)
    network = copy.deepcopy(network).eval().cpu().to(memory_format=torch.contiguous_format)
    with atomic_path(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own notes about names and shapes
        torch.onnx.export(
            network,
            tuple(inputs),
            temporary,
            input_names=list(input_names),
            output_names=names,
            dynamic_shapes=dynamic_shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        for given, free in zip(session.get_inputs(), _each(dynamic_shapes), strict=True):
            # torch tells of it, then tries again without them.
            if fixed := [axis for axis in free if isinstance(given.shape[axis], int)]:
                raise RunError(
                    f"{target}: axis {fixed[0]} of {given.name} became {given.shape[fixed[0]]} for "
                    "good in tracing, where it must stay free; nothing was written"
                )
        with torch.inference_mode():
            found = network(*inputs)
        feed = dict(zip(input_names, (values.numpy() for values in inputs), strict=True))
        difference = 0.0
        wanted = [found] if isinstance(output_name, str) else list(found)
        for got, expected in zip(session.run(names, feed), wanted, strict=True):
            apart = float(np.abs(got - expected.numpy()).max())
            limit = tolerance * max(1.0, float(expected.abs().max()))
            if not apart <= limit:
                raise RunError(
                    f"{target}: ONNX Runtime and torch differ by {apart:.2g}, more than "
                    f"{limit:.2g}; nothing was written"
                )
            difference = max(difference, apart)
    return difference


def _each(dynamic_shapes: dict[str, Any]) -> Iterator[dict[int, Any]]:
    """Free axes by input."""
    for shapes in dynamic_shapes.values():
        for shape in shapes if isinstance(shapes, tuple) else (shapes,):
            yield shape or {}
