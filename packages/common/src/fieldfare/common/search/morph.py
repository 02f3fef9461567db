# SPDX-License-Identifier: Apache-2.0
"""Make a network wider or deeper without changing what it computes.

Net2Net moves (Chen et al. 2016, arXiv 1511.05641) as EAS uses them (Cai et al. 2018, arXiv
1707.04873). Wider keeps the channels, copies random ones and divides what reads them by the number
of copies: exact for whatever acts on each channel alone. Deeper adds an identity, which ReLU keeps
because it does nothing twice; other activations do not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

Reader = nn.Linear | _ConvNd


def copies(channels: int, wider: int, generator: torch.Generator | None = None) -> Tensor:
    """Which channel each of the wider layer is: all of them, then random ones. (wider,) int64.

    Raises:
        ValueError: it would not be wider.
    """
    if wider <= channels:
        raise ValueError(f"{wider} channels are not more than {channels}")
    drawn = torch.randint(channels, (wider - channels,), generator=generator)
    return torch.cat([torch.arange(channels), drawn])


@torch.no_grad()
def widen(
    writer: Reader,
    between: Sequence[_BatchNorm],
    reader: Reader,
    indices: Tensor,
    depthwise: Sequence[nn.Module] = (),
) -> None:
    """Give the channels between two layers copies; the network computes the same.

    Args:
        writer: its outputs grow; with `groups` 1.
        between: norms on them, statistics included.
        reader: its inputs grow, divided by the number of copies.
        indices: see `copies`.
        depthwise: convolutions between them that act on each channel alone.
    """
    count = torch.bincount(indices)[indices]
    _take(writer, indices)
    for layer in depthwise:
        _take(layer, indices)
        if isinstance(layer, _ConvNd):
            layer.groups = layer.in_channels = len(indices)
    for norm in between:
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(norm, name)
            if value is not None:
                _put(norm, name, value[indices])
        norm.num_features = len(indices)
    share = count.to(reader.weight).reciprocal().view(1, -1, *[1] * (reader.weight.ndim - 2))
    _put(reader, "weight", reader.weight[:, indices] * share)
    _count(reader, "in", len(indices))


def _take(layer: nn.Module, indices: Tensor) -> None:
    """The layer with these outputs."""
    for name in ("weight", "bias"):
        if (value := getattr(layer, name, None)) is not None:
            _put(layer, name, value[indices])
    _count(layer, "out", len(indices))


def _count(layer: nn.Module, side: str, channels: int) -> None:
    for unit in ("features", "channels"):
        if hasattr(layer, f"{side}_{unit}"):
            setattr(layer, f"{side}_{unit}", channels)


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(value.clone(), old.requires_grad))
    else:
        setattr(module, name, value.clone())


@torch.no_grad()
def identity_after(
    convolution: _ConvNd, norm: _BatchNorm, sample: Tensor | None = None
) -> tuple[_ConvNd, _BatchNorm]:
    """A convolution and a norm of the same kinds that change nothing, for behind an activation.

    Args:
        convolution: whose kernel size and channels the new one has; odd sizes.
        norm: whose epsilon it has.
        sample: (N, C, ...) what comes in, for the norm's statistics, which it then undoes: the
            layer trains as others do; without it the norm has mean 0 and variance 1.

    Raises:
        ValueError: an even kernel size.
    """
    channels, size = convolution.out_channels, convolution.kernel_size
    if any(side % 2 == 0 for side in size):
        raise ValueError(f"kernel size {size}: only odd ones have a middle")
    kind: Any = type(convolution)
    norm_kind: Any = type(norm)
    middle = tuple(side // 2 for side in size)
    layer: _ConvNd = kind(channels, channels, size, padding=middle, bias=False)
    layer = layer.to(convolution.weight)
    layer.weight.zero_()
    for channel in range(channels):
        layer.weight[channel, channel][middle] = 1.0
    added: _BatchNorm = norm_kind(channels, eps=norm.eps).to(convolution.weight)
    assert added.running_mean is not None
    assert added.running_var is not None
    if sample is not None:
        axes = [0, *range(2, sample.ndim)]
        added.running_mean.copy_(sample.mean(axes))
        added.running_var.copy_(sample.var(axes, unbiased=False))
    added.weight.copy_((added.running_var + added.eps).sqrt())
    added.bias.copy_(added.running_mean)
    return layer, added
