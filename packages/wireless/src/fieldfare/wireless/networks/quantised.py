# SPDX-License-Identifier: Apache-2.0
"""Low-precision twins: 4-bit weights and 8-bit activations, trained with the rounding in place.

Every linear layer rounds its weights (one scale for each output) and its input (one scale) to
whole steps; the scales are learned, and gradients pass through the rounding as if it were not
there. Or the bits of every weight and every input are learned: each is a mixture of fixed-point
formats while it trains, and what it leans to in the end. `networks.rounded` packs what came of it.

Source: learned step sizes, Esser et al. 2020 (arXiv 1902.08153); learned bits, Zhao et al. 2020
(LPGNAS, arXiv 2009.09232).
"""

import copy
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from fieldfare.common.slim.fixed_point import Format, LearntBits, format_for

WEIGHT_BITS = 4
ACTIVATION_BITS = 8

BITS = (2, 4, 8, 16)
INPUT_RANGE = 3
"""Bits before the point of an input: features end at 8."""

Network = TypeVar("Network", bound=nn.Module)


class Grid(NamedTuple):
    """What a layer rounds to: bits, steps of the weight's rows (outputs,) and of the input ()."""

    weight_bits: int
    input_bits: int
    steps: Tensor
    step: Tensor


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

    def grid(self) -> Grid:
        """As it is now."""
        steps = self.log_weight_scale.exp().squeeze(1)
        return Grid(self.weight_bits, self.activation_bits, steps, self.log_input_scale.exp())


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

    def grid(self) -> Grid:
        """Of the formats that it leans to."""
        weight, given = (
            learnt.formats[int(learnt.alpha.argmax())]
            for learnt in (self.weight_bits, self.input_bits)
        )
        steps = self.weight.new_full((len(self.weight),), 2.0**-weight.fraction)
        return Grid(weight.bits, given.bits, steps, steps.new_tensor(2.0**-given.fraction))


def expected_share(network: nn.Module) -> Tensor:
    """Bits of all weights and of an input each, over 32, as they are mixed now; with a gradient."""
    layers = [m for m in network.modules() if isinstance(m, LearntLinear)]
    weights = torch.stack([m.weight_bits.bits() * m.weight.numel() for m in layers]).sum()
    inputs = torch.stack([m.input_bits.bits() * m.weight.shape[1] for m in layers]).sum()
    count = sum(m.weight.numel() + m.weight.shape[1] for m in layers)
    return (weights + inputs) / (32 * count)


def quantise(network: Network, weight_bits: int = WEIGHT_BITS) -> Network:
    """A copy of the network with every linear layer rounded, to be trained on for a while."""
    return _replaced(network, lambda layer: QuantisedLinear(layer, weight_bits))


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
    """Of the weights in a file."""
    return sum(part.numel() * part.element_size() for part in network.state_dict().values())
