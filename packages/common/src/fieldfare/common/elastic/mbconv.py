# SPDX-License-Identifier: Apache-2.0
"""What an MBConv needs to be cut smaller: its hidden width by ratio, and its channels in order.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791). Before the hidden width becomes elastic the
hidden channels are sorted, so that the first ones, which every narrower block keeps, are those that
the projection reads most.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks.attention import SqueezeExcite
from ..blocks.mbconv import MBConv, make_divisible
from .ops import by_importance


def hidden_width(channels: int, expansion: float) -> int:
    """Hidden channels of a block with so many inputs."""
    return make_divisible(round(channels * expansion))


@torch.no_grad()
def sort_hidden(block: MBConv, borders: Sequence[int] = ()) -> Tensor:
    """Bring the hidden channels into order of importance; the block computes the same.

    A channel is as important as the sum of the sizes of the weights by which the projection reads
    it; a squeezed unit likewise, by the layer behind it.

    Args:
        block: depthwise, with batch norms; changed in place.
        borders: hidden widths that are trained already; no channel crosses one.

    Returns:
        The order, (hidden,) int64.

    Raises:
        ValueError: the block has group norms or a grouped filter, where channels have neighbours.
    """
    layers: list[Any] = list(block.layers)
    projection, hidden = layers[-2], layers[-2].in_channels
    filters = layers[3].weight
    if filters.shape[1] != 1 or not isinstance(layers[1], _BATCH_NORMS):
        raise ValueError("only depthwise blocks with batch norms can be sorted")
    order = by_importance(projection.weight.abs().flatten(2).sum(dim=(0, 2)), borders)
    for layer in layers[:-2]:
        if isinstance(layer, SqueezeExcite):
            _sort_squeezed(layer, order)
        else:
            for tensor in (*layer.parameters(), *layer.buffers()):
                if tensor.ndim and tensor.shape[0] == hidden:
                    tensor.copy_(tensor[order])
    projection.weight.copy_(projection.weight[:, order])
    return order


def _sort_squeezed(layer: SqueezeExcite, order: Tensor) -> None:
    reduce: Any = layer.layers[0]
    expand: Any = layer.layers[2]
    weight, back = reduce.weight[:, order], expand.weight[order]
    inner = by_importance(back.abs().sum(dim=0))
    reduce.weight.copy_(weight[inner])
    reduce.bias.copy_(reduce.bias[inner])
    expand.weight.copy_(back[:, inner])
    expand.bias.copy_(expand.bias[order])


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
