# SPDX-License-Identifier: Apache-2.0
"""A stage of additive couplings whose inputs are computed back instead of kept.

Gomez et al. 2017, *The Reversible Residual Network* (arXiv 1707.04585): with the channels in two
halves, y1 = x1 + F(x2) and y2 = x2 + G(y1), so x2 = y2 - G(y1) and x1 = y1 - F(x2). Training then
needs the memory of one block, whatever the depth. In 3D U-Nets: Bruegger et al. 2019 (arXiv
1906.06148); with mobile inverted bottlenecks: Pendse et al. 2021 (arXiv 2104.09648).
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .evonorm import EvoNormB0

MEMORY_MODES = ("none", "checkpoint", "reversible")

BFLOAT16_BLOCKS = 8
"""Blocks in a stage above which gradients under bfloat16 autocast drift by more than 5 %."""


class ReversibleStage(nn.Module):
    """Blocks of two branches each; (B, C, *size) in and out, C even.

    The three memory modes have the same weights, outputs and gradients (up to the rounding of what
    is computed back):

    - `none` keeps all that autograd asks for.
    - `checkpoint` keeps the inputs of each branch and runs it again in the backward pass.
    - `reversible` keeps the outputs of the stage alone.

    The two streams stay in float32 (or float64) under autocast: in bfloat16 the inputs cannot be
    computed back. Dropout inside a branch draws the same mask again. Double backward, functorch and
    gradients of a graph that is kept are not supported in mode reversible.

    Args:
        branch: called with C / 2, twice for each block; a module that keeps shape.
        channels: C.
        blocks: number of blocks, at least 1.
        memory: one of `MEMORY_MODES`; may be set anew at any time.

    Raises:
        ValueError: odd channels, no blocks, unknown mode, or a batch norm in a branch: its running
            statistics would count every image twice.
    """

    def __init__(
        self,
        branch: Callable[[int], nn.Module],
        channels: int,
        blocks: int,
        memory: str = "reversible",
    ) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(f"channels must be even, got {channels}")
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}")
        self.first = nn.ModuleList(branch(channels // 2) for _ in range(blocks))
        self.second = nn.ModuleList(branch(channels // 2) for _ in range(blocks))
        for module in self.modules():
            if isinstance(module, _BatchNorm | EvoNormB0):
                raise ValueError("batch norm does not go with running a branch twice; use group")
        self.memory = memory

    @property
    def memory(self) -> str:
        """One of `MEMORY_MODES`."""
        return self._memory

    @memory.setter
    def memory(self, mode: str) -> None:
        if mode not in MEMORY_MODES:
            raise ValueError(f"memory must be one of {MEMORY_MODES}, got {mode!r}")
        self._memory = mode

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *size) -> the same shape, in float32 (float64 stays so)."""
        if not x.dtype.is_floating_point or x.element_size() < 4:
            x = x.float()
        one, two = x.chunk(2, dim=1)
        if self.memory == "reversible" and torch.is_grad_enabled():
            self._warn_of_drift(x.device.type)
            couple = self._reversible
            if torch.compiler.is_compiling():  # as a decorator it would import the compiler: 1.4 s
                couple = torch.compiler.disable(couple)
            one, two = couple(one, two)
        else:
            run = _checkpointed if self.memory == "checkpoint" else _plain
            for first, second in zip(self.first, self.second, strict=True):
                one = one + run(first, two)
                two = two + run(second, one)
        return torch.cat([one, two], dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """The input that gives y, without gradients; branches must be in evaluation mode."""
        one, two = y.chunk(2, dim=1)
        pairs = list(zip(self.first, self.second, strict=True))
        with torch.no_grad():
            for first, second in reversed(pairs):
                two = two - second(one).to(two.dtype)
                one = one - first(two).to(one.dtype)
        return torch.cat([one, two], dim=1)

    def _reversible(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        pairs = list(zip(self.first, self.second, strict=True))
        found: tuple[Tensor, Tensor] = _Couplings.apply(one, two, pairs, *_parameters(pairs))
        return found

    def _warn_of_drift(self, device: str) -> None:
        low = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device).itemsize < 4
        if low and len(self.first) > BFLOAT16_BLOCKS:
            warnings.warn(
                f"{len(self.first)} reversible blocks under 16-bit autocast: gradients drift by "
                f"more than 5 % above {BFLOAT16_BLOCKS} blocks; use float32 or memory='checkpoint'",
                stacklevel=3,
            )


Pair = tuple[nn.Module, nn.Module]


def _plain(branch: nn.Module, x: Tensor) -> Tensor:
    found: Tensor = branch(x).to(x.dtype)
    return found


def _checkpointed(branch: nn.Module, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _plain(branch, x)
    return checkpoint(_plain, branch, x, use_reentrant=False)


def _parameters(pairs: Sequence[Pair]) -> list[nn.Parameter]:
    """Those that want a gradient, each once, in the order of the blocks."""
    found: dict[int, nn.Parameter] = {}
    for pair in pairs:
        for branch in pair:
            found |= {id(p): p for p in branch.parameters() if p.requires_grad}
    return list(found.values())


class _Surroundings:
    """Autocast and random state in which a branch was run, to be run in again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        kind = device.type
        self.autocast = {
            name: (torch.is_autocast_enabled(name), torch.get_autocast_dtype(name))
            for name in {"cpu", kind}
        }
        self.random = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(device) if kind == "cuda" else None

    def restore(self, stack: ExitStack) -> None:
        """Enter them for the duration of the stack."""
        devices = [self.device] if self.cuda is not None else []
        stack.enter_context(torch.random.fork_rng(devices=devices))
        torch.set_rng_state(self.random)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
        for name, (enabled, dtype) in self.autocast.items():
            stack.enter_context(torch.autocast(name, dtype=dtype, enabled=enabled))


class _Couplings(torch.autograd.Function):
    """All blocks of a stage as one step of autograd, which keeps the outputs only."""

    @staticmethod
    def forward(
        ctx: Any, one: Tensor, two: Tensor, pairs: Sequence[Pair], *parameters: nn.Parameter
    ) -> tuple[Tensor, Tensor]:
        ctx.pairs, ctx.parameters, ctx.surroundings = pairs, parameters, []
        for first, second in pairs:
            ctx.surroundings.append(_Surroundings(one.device))
            one = one + _plain(first, two)
            ctx.surroundings.append(_Surroundings(one.device))
            two = two + _plain(second, one)
        ctx.save_for_backward(one, two)
        return one, two

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_one: Tensor, grad_two: Tensor) -> tuple[Any, ...]:
        one, two = ctx.saved_tensors
        total: dict[int, Tensor] = {}
        surroundings = list(ctx.surroundings)
        for first, second in reversed(ctx.pairs):
            found, change = _branch_gradients(second, one, grad_two, surroundings.pop(), total)
            two, grad_one = two - found, grad_one + change
            del found, change
            found, change = _branch_gradients(first, two, grad_one, surroundings.pop(), total)
            one, grad_two = one - found, grad_two + change
            del found, change
        gradients = (total.get(id(parameter)) for parameter in ctx.parameters)
        return grad_one, grad_two, None, *gradients


def _branch_gradients(
    branch: nn.Module,
    x: Tensor,
    gradient: Tensor,
    surroundings: _Surroundings,
    total: dict[int, Tensor],
) -> tuple[Tensor, Tensor]:
    """Run a branch again: its value, the gradient of its input; those of weights go to total."""
    parameters = [p for p in branch.parameters() if p.requires_grad]
    with ExitStack() as stack:
        surroundings.restore(stack)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = _plain(branch, x)
        of_input, *of_parameters = torch.autograd.grad(
            value, [x, *parameters], gradient, allow_unused=True
        )
    for parameter, found in zip(parameters, of_parameters, strict=True):
        if found is not None:
            known = total.get(id(parameter))
            total[id(parameter)] = found if known is None else known + found
    return value.detach(), torch.zeros_like(x) if of_input is None else of_input
