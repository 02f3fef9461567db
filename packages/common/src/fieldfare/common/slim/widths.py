# SPDX-License-Identifier: Apache-2.0
"""Layers of fewer channels than a configuration says, described so that a file can hold them.

A card's `config` with `widths` builds a slimmed network without the code that slimmed it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks import DepthwiseConv

Widths = Mapping[str, Sequence[int]]
"""Name of a layer -> inputs and outputs; of norms and depthwise convolutions the same twice."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.GroupNorm)


def is_depthwise(layer: nn.Module) -> bool:
    """A convolution of one filter a channel."""
    if isinstance(layer, DepthwiseConv):
        return True
    return isinstance(layer, CONVOLUTIONS) and 1 < layer.groups == layer.in_channels == (
        layer.out_channels
    )


def is_dense(layer: nn.Module) -> bool:
    """A linear layer, or a convolution each of whose outputs sees all inputs."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, CONVOLUTIONS) and layer.groups == 1)


def width_of(layer: nn.Module) -> tuple[int, int]:
    """Inputs and outputs.

    Raises:
        ValueError: a layer whose width cannot be changed.
    """
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, DepthwiseConv):
        return len(layer.weight), len(layer.weight)
    if is_dense(layer) or is_depthwise(layer):
        return int(layer.in_channels), int(layer.out_channels)  # type: ignore[arg-type]
    if isinstance(layer, BATCH_NORMS):
        return layer.num_features, layer.num_features
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels, layer.num_channels
    raise ValueError(f"the width of a {type(layer).__name__} cannot be changed")


def together(layer: nn.Module) -> int:
    """How many neighbouring channels go only together: those of a group of a group norm."""
    return layer.num_channels // layer.num_groups if isinstance(layer, nn.GroupNorm) else 1


def narrow_layer(layer: nn.Module, inputs: Tensor | None, outputs: Tensor | None) -> None:
    """Keep some inputs and outputs of a layer, in place.

    Args:
        inputs, outputs: (K,) int64, ascending; None keeps all. Of norms and depthwise convolutions
            only outputs count; of group norms whole groups.

    Raises:
        ValueError: a part of a group of a group norm.
    """
    if outputs is not None and len(outputs) % together(layer):
        raise ValueError(
            f"{len(outputs)} channels of a group norm: a group of {together(layer)} goes whole"
        )
    single = not is_dense(layer)
    values: list[tuple[str, Any]] = [
        *layer.named_parameters(recurse=False),
        *layer.named_buffers(recurse=False),
    ]
    for name, value in values:
        if not value.ndim:
            continue
        new = value.detach()
        if outputs is not None:
            new = new[outputs]
        if inputs is not None and not single and new.ndim > 1:
            new = new[:, inputs]
        trained = isinstance(value, nn.Parameter)
        kept = nn.Parameter(new.clone(), value.requires_grad) if trained else new.clone()
        setattr(layer, name, kept)
    _say_width(
        layer,
        None if inputs is None else len(inputs),
        None if outputs is None else len(outputs),
    )


def _say_width(layer: Any, inputs: int | None, outputs: int | None) -> None:
    """The attributes that a layer prints and computes with."""
    if isinstance(layer, BATCH_NORMS):
        layer.num_features = layer.num_features if outputs is None else outputs
    elif isinstance(layer, nn.GroupNorm):
        if outputs is not None:
            layer.num_channels, layer.num_groups = outputs, outputs // together(layer)
    elif isinstance(layer, DepthwiseConv):
        return  # says none
    elif is_depthwise(layer) and outputs is not None:
        layer.in_channels = layer.out_channels = layer.groups = outputs
    else:
        names = ("in_features", "out_features")
        if not isinstance(layer, nn.Linear):
            names = ("in_channels", "out_channels")
        for name, width in zip(names, (inputs, outputs), strict=True):
            if width is not None:
                setattr(layer, name, width)


def resize(model: nn.Module, widths: Widths) -> None:
    """Give layers the widths of a slimmed network, whose weights are loaded next; in place.

    Raises:
        ValueError: no such layer, or a width that is not between 1 and its own.
    """
    layers = dict(model.named_modules())
    for name, width in widths.items():
        if name not in layers:
            raise ValueError(f"widths: no layer is named {name}")
        own = width_of(layers[name])
        if len(width) != 2 or any(
            type(new) is not int or not 1 <= new <= old for new, old in zip(width, own, strict=True)
        ):
            raise ValueError(f"widths: {name} is {own[0]} to {own[1]} and cannot be {width}")
        if width[1] % together(layers[name]):
            raise ValueError(f"widths: {name} has groups of {together(layers[name])}, not {width}")
        if own != tuple(width):
            narrow_layer(layers[name], torch.arange(width[0]), torch.arange(width[1]))


def changed_widths(model: nn.Module, whole: nn.Module) -> dict[str, list[int]]:
    """The widths in which a network differs from another one of the same layers."""
    layers = dict(whole.named_modules())
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, NORMS) or is_dense(layer) or is_depthwise(layer):
            own = width_of(layer)
            if own != width_of(layers[name]):
                found[name] = list(own)
    return found
