# SPDX-License-Identifier: Apache-2.0
"""Cutting a small network's tensors out of a large one's: pure functions, any number of axes.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791): a narrower layer has the first channels of the
wide one, a smaller kernel is the centre of the larger one after a learnt linear map.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Index = int | Tensor
"""Along one axis: the first so many, or these (1-D int64)."""


def take(tensor: Tensor, index: Sequence[Index]) -> Tensor:
    """The part of a tensor along its leading axes; a view where every index is a number.

    Raises:
        ValueError: more is asked for than there is.
    """
    for axis, part in enumerate(index):
        if isinstance(part, Tensor):
            tensor = tensor.index_select(axis, part.to(tensor.device))
        elif part > tensor.shape[axis]:
            raise ValueError(f"axis {axis} has {tensor.shape[axis]} entries, {part} are asked for")
        elif part < tensor.shape[axis]:
            tensor = tensor.narrow(axis, 0, part)
    return tensor


@torch.no_grad()
def put(tensor: Tensor, index: Sequence[Index], value: Tensor) -> None:
    """Write what `take` took, in place."""
    places = [
        part.to(tensor.device) if isinstance(part, Tensor) else torch.arange(part) for part in index
    ]
    if not places:
        tensor.copy_(value)
        return
    grid = torch.meshgrid(*places, indexing="ij")
    tensor[tuple(axis.to(tensor.device) for axis in grid)] = value.to(tensor)


def crop(weight: Tensor, side: int) -> Tensor:
    """The centre of a kernel, (O, I, *K) -> (O, I, *side)."""
    for axis in range(2, weight.ndim):
        weight = weight.narrow(axis, (weight.shape[axis] - side) // 2, side)
    return weight


def shrink_kernel(weight: Tensor, side: int, maps: Mapping[int, Tensor]) -> Tensor:
    """A smaller kernel by way of every size between, (O, I, *K) -> (O, I, *side).

    Args:
        weight: with equal sides K.
        side: wanted; K gives the weight itself.
        maps: side to matrix (side^n, side^n); each maps the flattened centre of the next larger
            kernel, x -> M x. All channels share it.

    Raises:
        ValueError: no map for the wanted side.
    """
    own = weight.shape[-1]
    if side == own:
        return weight
    if side not in maps or side > own:
        raise ValueError(f"kernel {side}: no map leads there from {own}")
    for step in sorted((s for s in maps if side <= s < own), reverse=True):
        centre = crop(weight, step)
        flat = torch.nn.functional.linear(centre.flatten(2), maps[step])
        weight = flat.view(centre.shape)
    return weight


def identity_maps(sides: Sequence[int], ndim: int) -> dict[int, Tensor]:
    """A map for every side but the largest, which at first only crops."""
    return {side: torch.eye(side**ndim) for side in sorted(sides)[:-1]}


def by_importance(importance: Tensor, borders: Sequence[int] = ()) -> Tensor:
    """Order of channels, the most important first, none across a border.

    Args:
        importance: (C,).
        borders: widths that are trained already; a channel stays between the two it lies between.

    Returns:
        (C,) int64, the permutation; equal ones keep their order.
    """
    edges = sorted({0, *(b for b in borders if 0 < b < len(importance)), len(importance)})
    parts = []
    for low, high in pairwise(edges):
        order = torch.argsort(importance[low:high], descending=True, stable=True)
        parts.append(order + low)
    return torch.cat(parts)
