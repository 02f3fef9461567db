# SPDX-License-Identifier: Apache-2.0
"""Count a network's parameters, multiply-accumulates and memory, without weights or data."""

import copy
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """What one forward pass takes.

    Attributes:
        parameters: number of parameters, shared ones once.
        macs: multiply-accumulates of convolutions, matrix products (linear layers among them) and
            scaled dot-product attention, which is half of what torch.utils.flop_counter counts;
            norms, activations, pooling, resampling and FFT count nothing, and neither does what
            one fused kernel hides (an LSTM that runs on the CPU; on meta it is written out).
        activation_bytes: bytes autograd keeps for the backward pass, each storage once, inputs
            included, parameters and buffers not. Evaluation mode: no dropout masks.
        inference_bytes: most bytes of tensors alive at once without gradients, inputs included,
            parameters and buffers not; working memory inside one operation is not seen.
    """

    parameters: int
    macs: int
    activation_bytes: int
    inference_bytes: int


def cost(model: nn.Module, *inputs: Tensor | Sequence[int]) -> Cost:
    """Count what model(*inputs) takes, in evaluation mode; the model is left untouched.

    Runs a copy of the model on the meta device, where tensors have shapes and no memory. A model
    that cannot (it reads values, or keeps tensors that are not buffers) runs for real, copied, on
    the device it is on. Attention is counted as the device carries it out: the meta device
    writes the attention matrix out, which fused kernels do not.

    Args:
        model: any module.
        inputs: for each argument of its forward a tensor, or the shape of a float32 one:
            cost(net, (1, 3, 224, 224)).

    Returns:
        The counts.

    Raises:
        Whatever the model raises on these inputs.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        counts = _count(_meta_copy(model), _tensors(inputs, torch.device("meta")))
    except Exception:
        # What cannot run on meta says so in many types; a wrong input fails again below.
        counts = _count(copy.deepcopy(model), _tensors(inputs, device))
    return Cost(parameters, *counts)


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy with meta tensors for parameters and buffers; the originals are never copied."""
    replaced: dict[int, object] = {}
    for parameter in model.parameters():
        replaced[id(parameter)] = nn.Parameter(
            torch.empty_like(parameter, device="meta"), parameter.requires_grad
        )
    for buffer in model.buffers():
        replaced[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, replaced)


def _tensors(inputs: Sequence[Tensor | Sequence[int]], device: torch.device) -> list[Tensor]:
    return [
        value.detach().to(device)
        if isinstance(value, Tensor)
        else torch.zeros(value, device=device)
        for value in inputs
    ]


def _count(model: nn.Module, inputs: list[Tensor]) -> tuple[int, int, int]:
    """MACs, activation bytes and inference bytes; model may be changed by it."""
    model.eval()
    own = {_key(tensor) for tensor in (*model.parameters(), *model.buffers())}
    with torch.no_grad(), _LiveBytes(own, inputs) as live:
        model(*inputs)

    saved: dict[int, Tensor] = {}  # holds the tensors, so that no storage key is used twice

    def keep(tensor: Tensor) -> Tensor:
        if _key(tensor) not in own:
            saved[_key(tensor)] = tensor
        return tensor

    # With gradients, torch's layers keep off the fused fast paths that the counter cannot see into.
    flops = FlopCounterMode(display=False)
    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor), flops:
        output = model(*inputs)
    activation_bytes = sum(_bytes(tensor) for tensor in saved.values())
    del output
    return flops.get_total_flops() // 2, activation_bytes, live.peak


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations return and that are still referred to.

    Args:
        ignored: keys of storages that do not count.
        inputs: tensors that count from the start.
    """

    def __init__(self, ignored: set[int], inputs: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ignored = ignored
        self._alive: dict[int, int] = {}
        self._now = self.peak = 0
        for tensor in inputs:
            self._add(tensor)

    def _add(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key not in self._alive and key not in self._ignored:
            self._alive[key] = _bytes(tensor)
            self._now += self._alive[key]
            self.peak = max(self.peak, self._now)
            weakref.finalize(tensor.untyped_storage(), self._drop, key)

    def _drop(self, key: int) -> None:
        self._now -= self._alive.pop(key)

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return output


def _key(tensor: Tensor) -> int:
    found: int = tensor.untyped_storage()._cdata
    return found


def _bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes()
