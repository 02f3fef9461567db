# SPDX-License-Identifier: Apache-2.0
"""A changed network's activations brought back to the mean and variance that they had before.

Layer by layer, on the same inputs, each seeing what the layers before give after their own change:
running statistics of batch norms so that every channel leaves the norm with the mean and variance
that it has in the whole network, biases of other layers so that it has that mean. Unlike statistics
of a few inputs alone (`elastic.recalibrate`), what has not changed stays as it was trained.

The idea of matching what pruned layers give: Jordan et al. 2022, *REPAIR* (arXiv 2211.08403).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .widths import BATCH_NORMS, is_dense

SMALLEST = 1e-12
MOST = 100.0
"""Factor by which a variance may change."""


@torch.no_grad()
def match_moments(
    small: nn.Module, whole: nn.Module, kept: Mapping[str, Tensor], batches: Sequence[Tensor]
) -> None:
    """Change norms and biases of a network, both in evaluation mode.

    Args:
        small: changed in place; its layers are some of those of `whole`.
        whole: what it was made from; unchanged.
        kept: name of a layer -> which of its outputs in `whole` it has; all where it is missing.
        batches: inputs, which are put together: all must fit in memory at once.
    """
    wanted = _moments_of(whole, batches)
    done: set[str] = set()
    hooks = []
    for name, layer in small.named_modules():
        if name not in wanted:
            continue
        place = kept.get(name, torch.arange(len(wanted[name][0])))
        mean, var = (moment[place] for moment in wanted[name])
        if isinstance(layer, BATCH_NORMS):
            hooks.append(layer.register_forward_pre_hook(_set_norm(name, mean, var, done)))
        else:
            hooks.append(layer.register_forward_hook(_set_bias(name, mean, done)))
    try:
        small(torch.cat(list(batches)))
    finally:
        for hook in hooks:
            hook.remove()


def _set_norm(
    name: str, mean: Tensor, var: Tensor, done: set[str]
) -> Callable[[Any, tuple[Tensor, ...]], None]:
    """Before a norm runs for the first time; mean and var are what came in before."""

    def hook(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        if name in done:
            return
        done.add(name)
        now, spread = _mean_var(inputs[0], 1)
        ratio = (spread / var.clamp(min=SMALLEST)).clamp(1 / MOST, MOST)
        norm.running_mean.copy_(now - (mean - norm.running_mean) * ratio.sqrt())
        norm.running_var.mul_(ratio)

    return hook


def _set_bias(
    name: str, mean: Tensor, done: set[str]
) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if name in done:
            return output
        done.add(name)
        axis = _axis(layer)
        change = mean - _mean_var(output, axis)[0]
        layer.bias += change
        shape = [1] * output.ndim
        shape[axis] = -1
        return output + change.view(shape)

    return hook


def _moments_of(model: nn.Module, batches: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance by channel: of norms' inputs, of the outputs of layers with biases."""
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    count = sum(len(batch) for batch in batches)

    def add(name: str, x: Tensor, axis: int) -> None:
        mean, var = _mean_var(x, axis)
        square = (var + mean.square()) * len(x) / count
        old = sums.get(name, (torch.zeros_like(mean), torch.zeros_like(mean)))
        sums[name] = old[0] + mean * len(x) / count, old[1] + square

    def before(name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
        return lambda layer, inputs: add(name, inputs[0], 1)

    def after(name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], None]:
        return lambda layer, inputs, output: add(name, output, _axis(layer))

    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, BATCH_NORMS) and layer.running_mean is not None:
            hooks.append(layer.register_forward_pre_hook(before(name)))
        elif is_dense(layer) and layer.bias is not None:
            hooks.append(layer.register_forward_hook(after(name)))
    try:
        for batch in batches:
            model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (mean, square - mean.square()) for name, (mean, square) in sums.items()}


def _axis(layer: nn.Module) -> int:
    """Of the channels of what a layer gives."""
    return -1 if isinstance(layer, nn.Linear) else 1


def _mean_var(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """(C,) each, over all other axes."""
    own = axis % x.ndim
    var, mean = torch.var_mean(x.float(), [n for n in range(x.ndim) if n != own], correction=0)
    return mean, var
