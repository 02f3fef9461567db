# SPDX-License-Identifier: Apache-2.0
"""A trained precoder on a few bits: what `wl-precode train --bits` writes and every command runs.

Weights are whole numbers of 2 to 16 bits times a step of their row; a layer's input is rounded to
whole steps likewise. Steps and biases have 16 bits. The file holds the bits side by side, and its
card the numbers of bits of every layer. All arithmetic on them is in double precision, so that
torch, the compiled loops and the ONNX file round the same input to the same step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .graph import FEATURES
from .layer import UserLayer
from .precoder import IcgnnPrecoder
from .quantised import LearntLinear, QuantisedLinear, fake_quantise

LEAST_BITS, MOST_BITS = 2, 16

Bits = tuple[int, int]
"""Of a number of the weight, and of an input."""


class RoundedLinear(nn.Linear):
    """A linear layer on a rounded weight and input; filled by the network that holds it.

    Args:
        inputs, outputs: sizes.
        bits: of the weight and of an input.
    """

    step: Tensor

    def __init__(self, inputs: int, outputs: int, bits: Bits) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bits = inputs, outputs, bits
        for name, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)), ("step", ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64), persistent=False)

    def grid(self) -> tuple[float, float, float, float]:
        """Of the input: steps in one, a step, the least and the most steps."""
        limit = 2.0 ** (self.bits[1] - 1)
        return 1 / float(self.step), float(self.step), -limit, limit - 1

    def forward(self, values: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return nn.functional.linear(
            fake_quantise(values, self.step, self.bits[1]), self.weight, self.bias
        )


class RoundedLayer(UserLayer):
    """A `UserLayer` of rounded linear layers.

    Args:
        width, first: as of a `UserLayer`.
        bits: of its three linear layers.
    """

    input: RoundedLinear
    mix: RoundedLinear
    head: RoundedLinear

    def __init__(self, width: int, first: bool, bits: Sequence[Bits]) -> None:
        nn.Module.__init__(self)
        self.input = RoundedLinear(FEATURES if first else FEATURES + width, width, bits[0])
        self.mix = RoundedLinear(3 * width, width, bits[1])
        self.head = RoundedLinear(width, 2, bits[2])


class RoundedPrecoder(IcgnnPrecoder):
    """An `IcgnnPrecoder` of rounded layers; its state is the packed numbers.

    Args:
        width, layers: as of an `IcgnnPrecoder`.
        bits: of every linear layer by its name, weight and input: {"layers.0.input": (4, 8), ...}.
    """

    packed: Tensor
    wide: Tensor

    def __init__(self, width: int, layers: int, bits: Mapping[str, Sequence[int]]) -> None:
        super().__init__(width, 0)
        self.config: dict[str, Any] = {"width": width, "layers": layers}
        for number in range(layers):
            names = [f"layers.{number}.{part}" for part in ("input", "mix", "head")]
            self.layers.append(RoundedLayer(width, not number, [_checked(bits[n]) for n in names]))
        self.config["bits"] = {name: list(layer.bits) for name, layer in self._linears().items()}
        if bits.keys() != self.config["bits"].keys():
            raise ValueError(f"bits of layers that there are not: {sorted(bits)}")
        linears = self._linears().values()
        packed = -(-sum(layer.bits[0] * layer.weight.numel() for layer in linears) // 8)
        wide = sum(2 * layer.out_features + 1 for layer in linears)
        self.register_buffer("packed", torch.zeros(packed, dtype=torch.uint8))
        self.register_buffer("wide", torch.zeros(wide, dtype=torch.float16))

    @property
    def dtype(self) -> torch.dtype:
        """Double, whatever the channels': a step more or less is no rounding error."""
        return torch.float64

    def _linears(self) -> dict[str, RoundedLinear]:
        return {n: m for n, m in self.named_modules() if isinstance(m, RoundedLinear)}

    def load_state_dict(self, *given: Any, **named: Any) -> Any:
        """As of any module, and fill the layers."""
        found = super().load_state_dict(*given, **named)
        self._unpack()
        return found

    def _unpack(self) -> None:
        stream = np.unpackbits(self.packed.cpu().numpy())
        wide = self.wide.double()
        at = of = 0
        for layer in self._linears().values():
            outputs, bits = layer.out_features, layer.bits[0]
            end = at + bits * layer.weight.numel()
            places = 1 << np.arange(bits - 1, -1, -1)
            whole = stream[at:end].reshape(-1, bits) @ places - 2 ** (bits - 1)
            steps, step, bias = wide[of : of + 2 * outputs + 1].split([outputs, 1, outputs])
            weight = torch.from_numpy(whole).to(wide).reshape(layer.weight.shape)
            layer.weight.copy_(weight * steps.unsqueeze(-1))
            layer.step.copy_(step[0])
            layer.bias.copy_(bias)
            at, of = end, of + 2 * outputs + 1


def _checked(bits: Sequence[int]) -> Bits:
    weight, given = (int(count) for count in bits)
    if not all(LEAST_BITS <= count <= MOST_BITS for count in (weight, given)):
        raise ValueError(f"{weight} and {given} bits: must be {LEAST_BITS} to {MOST_BITS}")
    return weight, given


@torch.no_grad()
def freeze(twin: IcgnnPrecoder) -> RoundedPrecoder:
    """The trained twin, of `quantise` or `learn_bits`, on the bits that it has come to."""
    named = {
        name: module
        for name, module in twin.named_modules()
        if isinstance(module, QuantisedLinear | LearntLinear)
    }
    grids = {name: module.grid() for name, module in named.items()}
    bits = {name: (grid.weight_bits, grid.input_bits) for name, grid in grids.items()}
    frozen = RoundedPrecoder(twin.config["width"], twin.config["layers"], bits)
    stream, wide = [], []
    for name, grid in grids.items():
        steps = grid.steps.half()
        limit = 2 ** (grid.weight_bits - 1)
        whole = (named[name].weight.double() / steps.double().unsqueeze(-1)).round()
        numbers = whole.clamp(-limit, limit - 1).long().cpu().numpy().reshape(-1, 1) + limit
        places = np.arange(grid.weight_bits - 1, -1, -1)
        stream.append(((numbers >> places) & 1).astype(np.uint8).ravel())
        wide += [steps, grid.step.half().reshape(1), named[name].bias.half()]
    state = {
        "packed": torch.from_numpy(np.packbits(np.concatenate(stream))),
        "wide": torch.cat(wide).cpu(),
    }
    frozen.load_state_dict(state)
    return frozen.eval()
