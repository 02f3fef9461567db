# SPDX-License-Identifier: Apache-2.0
"""torch's layers by number of dimensions."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .evonorm import EvoNormS0

NORMS = ("group", "instance", "batch", "evonorm")
GROUPS = 8
"""Most groups of a group norm and of an EvoNorm."""

_T = TypeVar("_T")

_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_BATCH = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS: dict[int, type[nn.Module]] = {
    1: nn.AdaptiveAvgPool1d,
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}


def convolution(ndim: int, *arguments: Any, **options: Any) -> nn.Module:
    """`nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d`."""
    return _of(_CONVOLUTIONS, ndim)(*arguments, **options)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
    """`torch.conv1d`, `conv2d` or `conv3d` of x (B, C, *size) with weight (O, I, *kernel)."""
    functions = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}
    found: Tensor = _of(functions, x.ndim - 2)(x, weight, bias, **options)
    return found


def adaptive_avg_pool(ndim: int, size: int = 1) -> nn.Module:
    """`nn.AdaptiveAvgPool1d`, ...2d or ...3d."""
    return _of(_POOLS, ndim)(size)


def normalisation(name: str, ndim: int, channels: int) -> nn.Module:
    """A norm with learnt scale and offset.

    Args:
        name: one of `NORMS`; `group` and `evonorm` (S0, which is an activation as well) have the
            most groups up to GROUPS that divide the channels.
        ndim: 1, 2 or 3.

    Raises:
        ValueError: no such norm.
    """
    if name == "group":
        return nn.GroupNorm(math.gcd(channels, GROUPS), channels)
    if name == "evonorm":
        return EvoNormS0(channels, math.gcd(channels, GROUPS))
    if name == "instance":
        return _of(_INSTANCE, ndim)(channels, affine=True)
    if name == "batch":
        return _of(_BATCH, ndim)(channels)
    raise ValueError(f"norm must be one of {NORMS}, got {name!r}")


def _of(kinds: Mapping[int, Callable[..., _T]], ndim: int) -> Callable[..., _T]:
    if ndim not in kinds:
        raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")
    return kinds[ndim]
