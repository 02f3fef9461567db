# SPDX-License-Identifier: Apache-2.0
"""Low-precision twins: 4-bit weights and 8-bit activations, trained with the rounding in place.

Every linear layer rounds its weights (one scale for each output) and its input (one scale) to
whole steps; the scales are learned, and gradients pass through the rounding as if it were not
there. Or the bits of every weight and every input are learned: each is a mixture of fixed-point
formats while it trains, and what it leans to in the end. What runs is simulated in floating point;
the bytes are those of the packed weights.

Source: learned step sizes, Esser et al. 2020 (arXiv 1902.08153); learned bits, Zhao et al. 2020
(LPGNAS, arXiv 2009.09232).
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from fieldfare.common.slim.fixed_point import Format, LearntBits, format_for

WEIGHT_BITS = 4
ACTIVATION_BITS = 8

BITS = (2, 4, 8, 16)
INPUT_RANGE = 3
"""Bits before the point of an input: features end at 8."""

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


class LearntLinear(nn.Module):
    """A linear layer on a weight and an input of learned numbers of bits; the bias stays as it is.

    Args:
        layer: whose weights to take over.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_bits = LearntBits([format_for(layer.weight, bits) for bits in BITS])
        whole = [min(INPUT_RANGE, bits - 1) for bits in BITS]
        self.input_bits = LearntBits(
            [Format(i, bits - 1 - i) for i, bits in zip(whole, BITS, strict=True)]
        )

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return nn.functional.linear(
            self.input_bits(values), self.weight_bits(self.weight), self.bias
        )

    def chosen(self) -> tuple[int, int]:
        """Bits of a number of the weight, and of an input."""
        weight, given = (
            learnt.formats[int(learnt.alpha.argmax())].bits
            for learnt in (self.weight_bits, self.input_bits)
        )
        return weight, given

    def bits(self) -> int:
        """Stored: the weight, two formats in 8 bits, the bias in 16."""
        bias = 0 if self.bias is None else self.bias.numel()
        return self.chosen()[0] * self.weight.numel() + 16 + 16 * bias


def expected_share(network: nn.Module) -> Tensor:
    """Bits of all weights and of an input each, over 32, as they are mixed now; with a gradient."""
    layers = [m for m in network.modules() if isinstance(m, LearntLinear)]
    weights = torch.stack([m.weight_bits.bits() * m.weight.numel() for m in layers]).sum()
    inputs = torch.stack([m.input_bits.bits() * m.weight.shape[1] for m in layers]).sum()
    count = sum(m.weight.numel() + m.weight.shape[1] for m in layers)
    return (weights + inputs) / (32 * count)


def quantise(network: Network) -> Network:
    """A copy of the network with every linear layer rounded, to be trained on for a while."""
    return _replaced(network, QuantisedLinear)


def learn_bits(network: Network) -> Network:
    """A copy whose linear layers learn their bits, with `expected_share` in the loss."""
    return _replaced(network, LearntLinear)


def _replaced(network: Network, made: Callable[[nn.Linear], nn.Module]) -> Network:
    twin = copy.deepcopy(network)
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, made(child))
    return twin


def stored_bytes(network: nn.Module) -> int:
    """Of the weights: packed for rounded layers, 2 bytes for what else a twin holds, else 4."""
    rounded = [m for m in network.modules() if isinstance(m, QuantisedLinear | LearntLinear)]
    if not rounded:
        return sum(p.numel() * 4 for p in network.parameters())
    inside = {id(p) for module in rounded for p in module.parameters()}
    rest = sum(p.numel() for p in network.parameters() if id(p) not in inside)
    return -(-sum(module.bits() for module in rounded) // 8) + 2 * rest
