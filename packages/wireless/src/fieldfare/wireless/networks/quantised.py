# SPDX-License-Identifier: Apache-2.0
"""Low-precision twins: 4-bit weights and 8-bit activations, trained with the rounding in place.

Every linear layer rounds its weights (one scale for each output) and its input (one scale) to
whole steps; the scales are learned, and gradients pass through the rounding as if it were not
there. What runs is simulated in floating point; the bytes are those of the packed weights.

Source: learned step sizes, Esser et al. 2020 (arXiv 1902.08153).
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

WEIGHT_BITS = 4
ACTIVATION_BITS = 8

Network = TypeVar("Network", bound=nn.Module)


def fake_quantise(values: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Round to whole multiples of the scale, -2^(bits-1) to 2^(bits-1) - 1 of them.

    Args:
        values: any shape.
        scale: positive, broadcastable to the values.
        bits: 2 or more.

    Returns:
        The rounded values. The gradient passes to values within range, and to the scale as the
        rounding error (within range) or the limit (outside).
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    steps = (values / scale).clamp(low, high)
    return (steps + (steps.round() - steps).detach()) * scale


class QuantisedLinear(nn.Module):
    """A linear layer on rounded weights and a rounded input; the bias stays as it is.

    Args:
        layer: whose weights to take over.
        weight_bits, activation_bits: of a weight and of an input.
    """

    def __init__(
        self,
        layer: nn.Linear,
        weight_bits: int = WEIGHT_BITS,
        activation_bits: int = ACTIVATION_BITS,
    ) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_bits, self.activation_bits = weight_bits, activation_bits
        weight = layer.weight.detach()
        # The scale that Esser et al. start from, 2 mean |w| / sqrt(2^(bits-1) - 1).
        start = 2 * weight.abs().mean(1, keepdim=True) / (2 ** (weight_bits - 1) - 1) ** 0.5
        self.log_weight_scale = nn.Parameter(start.clamp_min(1e-4).log())
        # Inputs are features and states of size about 1; the range starts at -8 to 8.
        self.log_input_scale = nn.Parameter(
            torch.tensor(8.0 / 2 ** (activation_bits - 1), dtype=weight.dtype).log()
        )

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        weight = fake_quantise(self.weight, self.log_weight_scale.exp(), self.weight_bits)
        rounded = fake_quantise(values, self.log_input_scale.exp(), self.activation_bits)
        return nn.functional.linear(rounded, weight, self.bias)

    def bits(self) -> int:
        """Stored: weights, and scales and bias in 16 bits."""
        outputs, inputs = self.weight.shape
        wide = outputs + 1 + (0 if self.bias is None else outputs)
        return int(self.weight_bits * outputs * inputs + 16 * wide)


def quantise(network: Network) -> Network:
    """A copy of the network with every linear layer rounded, to be trained on for a while."""
    twin = copy.deepcopy(network)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, QuantisedLinear(child))
    return twin


def stored_bytes(network: nn.Module) -> int:
    """Of the weights: packed for rounded layers, 2 bytes for what else a twin holds, else 4."""
    rounded = [m for m in network.modules() if isinstance(m, QuantisedLinear)]
    if not rounded:
        return sum(p.numel() * 4 for p in network.parameters())
    inside = {id(p) for module in rounded for p in module.parameters()}
    rest = sum(p.numel() for p in network.parameters() if id(p) not in inside)
    return -(-sum(module.bits() for module in rounded) // 8) + 2 * rest
