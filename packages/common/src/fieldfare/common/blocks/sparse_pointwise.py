# SPDX-License-Identifier: Apache-2.0
"""The 1x1 convolution with sparse weights, faster than the dense one on a CPU.

Elsen et al. 2019, *Fast Sparse ConvNets* (arXiv 1911.09723), with blocks of output channels as in
SparseByteNN (Xu et al. 2023, arXiv 2310.19509). The sources run unstructured weights; on x86 four
output channels that share their inputs are what pays (see `docs/blocks.md` for the times).
Weights with such zeros come from `fieldfare.common.slim.prune`.
"""

import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fieldfare.common.errors import InputError

from .nd import convolution, convolve
from .sparse_blocks import Blocks, pack, unpack

MOST_DENSE = 0.5
"""Share of blocks above which a layer is not worth a measurement."""

GAIN = 1.1
"""Times faster that the sparse form must be measured to be used."""


class SparsePointwise(nn.Module):
    """(B, C, *size) -> (B, O, *size), what the 1x1 convolution it is made of gives.

    For inference: the weights are fixed. float32 on the CPU without gradients runs the compiled
    loop; everything else (CUDA, half precision, a gradient of the input, export) a dense one.
    Infinite or NaN inputs do not spread to outputs that have no weight for them.

    Args:
        conv: of one to three dimensions, see `is_pointwise`.
        packed: columns are copied together before each tile; faster where many blocks read the
            same channel, slower where few do; by the number of those when None.

    Raises:
        InputError: numba is missing.
        ValueError: the convolution is of another kind.
    """

    starts: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Module, packed: bool | None = None) -> None:
        super().__init__()
        _require_numba()
        if not is_pointwise(conv):
            raise ValueError(f"not a 1x1 convolution of stride 1 without groups: {conv}")
        assert isinstance(conv, _ConvNd)
        weight = conv.weight.detach()
        self.ndim = weight.ndim - 2
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        blocks = pack(weight.flatten(1))
        for name, tensor in blocks._asdict().items():
            self.register_buffer(name, tensor)
        bias = weight.new_zeros(blocks.values.shape[1] * (len(blocks.starts) - 1))
        if conv.bias is not None:
            bias[: self.out_channels] = conv.bias.detach()
        self.register_buffer("bias", bias)
        reads = len(blocks.columns) / self.in_channels
        self.packed = reads >= 12 if packed is None else packed

    @property
    def density(self) -> float:
        """Share of the blocks that are not zero."""
        return len(self.columns) / (self.in_channels * (len(self.starts) - 1))

    def dense(self) -> nn.Module:
        """The convolution that this layer stands for."""
        conv = convolution(self.ndim, self.in_channels, self.out_channels, 1, device="meta")
        conv.weight, conv.bias = (nn.Parameter(value) for value in self._dense())
        return conv.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> (B, O, *size).

        Raises:
            ValueError: another number of channels.
        """
        if x.shape[1] != self.in_channels:
            raise ValueError(f"{self.in_channels} channels wanted, got {tuple(x.shape)}")
        if not self._compiled(x):
            return convolve(x, *self._dense())
        from .sparse_kernel import multiply

        x = x.detach().contiguous()
        out = x.new_empty(x.shape[0], self.out_channels, *x.shape[2:])
        multiply(
            x.flatten(2).numpy(),
            self.starts.numpy(),
            self.columns.numpy(),
            self.values.numpy(),
            self.bias.numpy(),
            out.flatten(2).numpy(),
            packed=self.packed,
            threads=torch.get_num_threads(),
        )
        return out

    def extra_repr(self) -> str:
        """As torch's layers print themselves."""
        return f"{self.in_channels}, {self.out_channels}, density={self.density:.3f}"

    def _dense(self) -> tuple[Tensor, Tensor]:
        blocks = Blocks(self.starts, self.columns, self.values)
        weight = unpack(blocks, self.out_channels, self.in_channels)
        return weight.view(*weight.shape, *[1] * self.ndim), self.bias[: self.out_channels]

    def _compiled(self, x: Tensor) -> bool:
        return (
            x.device.type == self.values.device.type == "cpu"
            and x.dtype == self.values.dtype == torch.float32
            and not (x.requires_grad and torch.is_grad_enabled())
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )


@dataclass(frozen=True)
class Choice:
    """What was measured of one layer.

    Attributes:
        name: of the layer in its model.
        density: share of its blocks that are not zero.
        dense, sparse: seconds, the shortest of the rounds.
        used: the layer is sparse now.
    """

    name: str
    density: float
    dense: float
    sparse: float
    used: bool


def is_pointwise(module: nn.Module) -> bool:
    """A convolution of kernel 1 and stride 1, without groups and padding."""
    return (
        isinstance(module, _ConvNd)
        and not module.transposed
        and math.prod(module.kernel_size) == math.prod(module.stride) == module.groups == 1
        and module.padding in (tuple([0] * len(module.kernel_size)), "valid", "same")
    )


def sparsify(model: nn.Module, *inputs: Any, rounds: int = 10) -> list[Choice]:
    """Make the 1x1 convolutions of a model sparse where that is measured to be faster here.

    Each candidate is timed on what reaches it when the model runs on the inputs, with torch's
    present number of threads. So the choice, but not what the model computes beyond rounding,
    may differ from machine to machine.

    Args:
        model: on the CPU, in float32, changed in place.
        inputs: of a call of the model, of the size that it will be used with.
        rounds: each form is run this often, in turn.

    Returns:
        The layers that were measured, in the order they run; those with too few zeros are not.
    """
    _require_numba()
    names = {module: name for name, module in model.named_modules() if is_pointwise(module)}
    found: dict[nn.Module, tuple[Choice, SparsePointwise]] = {}

    def measure(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if module in found:
            return
        forms = [SparsePointwise(module, packed=packed) for packed in (False, True)]
        if forms[0].density > MOST_DENSE:
            return
        # `module.forward` itself, or this hook would call itself
        dense, *sparse = _shortest([module.forward, *forms], arguments[0], rounds)
        best = min(range(2), key=sparse.__getitem__)
        used = dense >= GAIN * sparse[best]
        choice = Choice(names[module], forms[0].density, dense, sparse[best], used)
        found[module] = choice, forms[best].train(module.training)

    training = {module: module.training for module in model.modules()}
    hooks = [module.register_forward_pre_hook(measure) for module in names]
    try:
        with torch.inference_mode():
            model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in training.items():
            module.training = mode
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in found and found[child][0].used:
                setattr(parent, name, found[child][1])
    return [choice for choice, _ in found.values()]


def _shortest(calls: list[Callable[[Tensor], Tensor]], x: Tensor, rounds: int) -> list[float]:
    """Seconds of each call, the shortest of the rounds after one to warm up."""
    best = [math.inf] * len(calls)
    for number in range(rounds + 1):
        for place, call in enumerate(calls):
            start = time.perf_counter()
            call(x)
            if number:
                best[place] = min(best[place], time.perf_counter() - start)
    return best


def _require_numba() -> None:
    if importlib.util.find_spec("numba") is None:
        raise InputError(
            "SparsePointwise: numba is missing; pip install 'fieldfare-common[sparse]'"
        )
