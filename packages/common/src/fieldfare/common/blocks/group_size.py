# SPDX-License-Identifier: Apache-2.0
"""Grouped convolutions with a constant number of channels a group, in any number of dimensions.

Jha et al. 2020, *E2GC: Energy-efficient Group Convolution in Deep Neural Networks* (arXiv
2006.15100): with groups of G channels a layer costs k^d C G multiply-adds a pixel, so cost grows as
depthwise does (G = 1), G times; with a constant number of groups it grows with C squared.
"""

from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from .nd import convolution


def groups_of(channels: int, group_size: int) -> int:
    """How many groups of group_size there are.

    Raises:
        ValueError: group_size does not divide the channels.
    """
    if group_size < 1 or channels % group_size:
        raise ValueError(f"group_size {group_size} must divide channels {channels}")
    return channels // group_size


def group_convolution(
    ndim: int, channels: int, kernel: int, group_size: int, **options: Any
) -> nn.Module:
    """A convolution of as many channels out as in, in groups of group_size; padded to keep size."""
    groups = groups_of(channels, group_size)
    options = {"padding": kernel // 2, **options}
    return convolution(ndim, channels, channels, kernel, groups=groups, **options)


def regroup(model: nn.Module, group_size: int) -> int:
    """Give every grouped convolution of a model (depthwise ones too) groups of group_size.

    For a network before training: the new convolutions have new random weights.

    Args:
        model: changed in place.

    Returns:
        How many were replaced.

    Raises:
        ValueError: group_size does not divide the channels of one; the model is unchanged.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, _ConvNd) and child.groups > 1
    ]
    for _, name, child in found:
        for channels in (child.in_channels, child.out_channels):
            try:
                groups_of(channels, group_size)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    for parent, name, child in found:
        # kernel, stride, padding, dilation and kind (also timm's subclasses) stay as they are
        options: dict[str, Any] = {
            key: getattr(child, key)
            for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        kind: Any = type(child)
        weight = child.weight
        new = kind(
            child.in_channels,
            child.out_channels,
            groups=groups_of(child.in_channels, group_size),
            bias=child.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
            **options,
        )
        setattr(parent, name, new.train(child.training))
    return len(found)
