# SPDX-License-Identifier: Apache-2.0
"""An elastic network: the largest one's weights, run as any of the smaller networks of a space.

The small networks are ordinary ones, made by the same function as the large one. Running one means
calling it with tensors cut out of the large one's; extracting it means copying the same tensors
into it. So both compute the same, and gradients and running statistics reach the large network's
weights.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from ..blocks.depthwise import DepthwiseConv
from .genes import Choice, Space, Value
from .ops import Index, identity_maps, put, shrink_kernel, take

Build = Callable[[Choice], nn.Module]
Indices = Callable[[Choice], Mapping[str, tuple[Index, ...]]]


class ElasticNet(nn.Module):
    """A network of any size of a space; after construction the largest.

    A tensor of a small network is cut out of the large one's tensor of the same name: the first
    entries along each axis, and the centre of a kernel after its maps. What a small network does
    not have (deeper blocks) is left out.

    Args:
        space: of the choices.
        build: choice -> ordinary network; a name must mean the same in all of them.
        kernels: name of a convolution's weight -> its sides, where the kernel may shrink.
        indices: choice -> name -> what to take along the leading axes, where it is not the first.
    """

    def __init__(
        self,
        space: Space,
        build: Build,
        *,
        kernels: Mapping[str, tuple[int, ...]] | None = None,
        indices: Indices | None = None,
    ) -> None:
        super().__init__()
        self.space, self.build, self._indices = space, build, indices
        self.full = build(space.largest())
        weights = dict(self.full.named_parameters())
        self.maps = nn.ParameterDict(
            {
                _key(name, side): nn.Parameter(matrix)
                for name, sides in (kernels or {}).items()
                for side, matrix in identity_maps(sides, weights[name].ndim - 2).items()
            }
        )
        self._sides = {name: tuple(sorted(sides)) for name, sides in (kernels or {}).items()}
        self.choice = space.largest()
        self._small: tuple[nn.Module, ...] = ()  # in a tuple, so that it is no part of this module

    def choices(self) -> Space:
        """What can be set."""
        return self.space

    def set(self, choice: Mapping[str, Value]) -> None:
        """Run as this network from now on.

        Raises:
            ValueError: not a choice of the space.
        """
        new = self.space.canonical(choice)
        if new != self.choice:
            self.choice = new
            self._small = ()

    def forward(self, *inputs: Any) -> Any:
        """What the chosen network gives; in training its statistics go to the large one."""
        if self.choice == self.space.largest():
            return self.full(*inputs)
        if not self._small:
            self._small = (self._shape_of(self.choice),)
        small = self._small[0].train(self.training)
        tensors = self._cut(small, self.choice)
        found = functional_call(small, tensors, inputs)
        if self.training:
            self._return_buffers(self.choice, {n: tensors[n] for n, _ in small.named_buffers()})
        return found

    def extract(self, choice: Mapping[str, Value]) -> nn.Module:
        """The network by itself, with copies of the weights, in this one's mode."""
        own = self.space.canonical(choice)
        small = self._shape_of(own)
        tensors = self._cut(small, own)
        small.to_empty(device=next(self.full.parameters()).device)
        small.to(next(self.full.parameters()).dtype)
        with torch.no_grad():
            for name, tensor in named_tensors(small).items():
                tensor.copy_(tensors[name])
        return small.train(self.training)

    def insert_statistics(self, choice: Mapping[str, Value], small: nn.Module) -> None:
        """Take over the buffers (running statistics) of an extracted network."""
        self._return_buffers(self.space.canonical(choice), dict(small.named_buffers()))

    def _shape_of(self, choice: Choice) -> nn.Module:
        """The small network without values; no random number is drawn."""
        with torch.device("meta"):
            return self.build(choice)

    def _cut(self, small: nn.Module, choice: Choice) -> dict[str, Tensor]:
        """The small network's tensors by name."""
        large, special = named_tensors(self.full), self._special(choice)
        weights = {name for name, _ in small.named_parameters()}
        found = {}
        for name, template in named_tensors(small).items():
            shape, sides = tuple(template.shape), self._sides.get(name)
            if sides is None and name not in special and shape[2:] != large[name].shape[2:]:
                self._refuse_kernel(name)
            index = special.get(name, shape if sides is None else shape[:2])
            part = take(large[name], index)
            if sides is not None:
                maps = {side: self.maps[_key(name, side)] for side in sides[:-1]}
                part = shrink_kernel(part, shape[-1], maps)
            if part.shape != shape:
                raise ValueError(f"{name}: cut to {tuple(part.shape)}, wanted {shape}")
            # a buffer stays a view, so that batch norm updates the large one's; weights are packed,
            # so that the same kernels run over the same memory as in the extracted network
            found[name] = part.contiguous() if name in weights else part
        return found

    def _refuse_kernel(self, name: str) -> None:
        """The first taps of a kernel would be a wrong answer in silence."""
        if isinstance(self.full.get_submodule(name.rpartition(".")[0]), _ConvNd | DepthwiseConv):
            raise ValueError(f"{name}: its kernel shrinks, but is not among `kernels`")

    def _return_buffers(self, choice: Choice, buffers: Mapping[str, Tensor]) -> None:
        """Write back what is no view of the large network's own."""
        large, special = dict(self.full.named_buffers()), self._special(choice)
        for name, value in buffers.items():
            if value.untyped_storage()._cdata != large[name].untyped_storage()._cdata:
                put(large[name], special.get(name, tuple(value.shape)), value)

    def _special(self, choice: Choice) -> Mapping[str, tuple[Index, ...]]:
        return self._indices(choice) if self._indices else {}


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are not saved among them."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _key(name: str, side: int) -> str:
    """Of a map in a ParameterDict, whose keys have no dots."""
    return f"{name.replace('.', '-')}-to{side}"
