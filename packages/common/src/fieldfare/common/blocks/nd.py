# SPDX-License-Identifier: Apache-2.0
"""torch's layers by number of dimensions."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

NORMS = ("group", "instance", "batch")
GROUPS = 8
"""Most groups of a group norm."""

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


def adaptive_avg_pool(ndim: int, size: int = 1) -> nn.Module:
    """`nn.AdaptiveAvgPool1d`, ...2d or ...3d."""
    return _of(_POOLS, ndim)(size)


def normalisation(name: str, ndim: int, channels: int) -> nn.Module:
    """A norm with learnt scale and offset.

    Args:
        name: one of `NORMS`; `group` has the most groups up to GROUPS that divide the channels.
        ndim: 1, 2 or 3.

    Raises:
        ValueError: no such norm.
    """
    if name == "group":
        return nn.GroupNorm(math.gcd(channels, GROUPS), channels)
    if name == "instance":
        return _of(_INSTANCE, ndim)(channels, affine=True)
    if name == "batch":
        return _of(_BATCH, ndim)(channels)
    raise ValueError(f"norm must be one of {NORMS}, got {name!r}")


def _of(kinds: Mapping[int, Callable[..., nn.Module]], ndim: int) -> Callable[..., nn.Module]:
    if ndim not in kinds:
        raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")
    return kinds[ndim]
