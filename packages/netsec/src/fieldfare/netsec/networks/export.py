# SPDX-License-Identifier: Apache-2.0
"""A classifier as ONNX, for any number of flows."""

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.export import Dim

from fieldfare.common.efficiency.export import export_onnx

from .architectures import Architecture, FlowNetwork

TOLERANCE = 1e-3
"""Of logits of size about 1 to 10."""


class _Logits(nn.Module):
    """A classifier on plain tensors."""

    def __init__(self, kind: Architecture, network: nn.Module) -> None:
        super().__init__()
        self.kind, self.network = kind, network

    def forward(self, *inputs: Tensor) -> Tensor:
        network = cast(FlowNetwork, self.network)
        return network.classify(network.embed(self.kind.join(inputs)))


def export_classifier(kind: Architecture, network: nn.Module, config: Any, target: Path) -> float:
    """Write the network from `Architecture.example`'s tensors to `logits`.

    Args:
        network: a `FlowNetwork` of that architecture and configuration.

    Returns:
        The largest difference between torch and ONNX Runtime; errors as of `export_onnx`.
    """
    example = kind.example(config)
    batch = Dim("batch")
    return export_onnx(
        _Logits(kind, network),
        list(example.values()),
        target,
        input_names=tuple(example),
        output_name="logits",
        dynamic_shapes={"inputs": tuple({0: batch} for _ in example)},
        tolerance=TOLERANCE,
        install="fieldfare-netsec[onnx]",
    )
