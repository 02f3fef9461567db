# SPDX-License-Identifier: Apache-2.0
"""An elastic reversible U-Net: one set of weights, stages of any depth, branches of any width.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791), for the reversible MBConv U-Net (arXiv
2104.09648): the blocks of a stage and the expansion of its inverted bottlenecks vary, the streams
that couple the blocks keep their channels. Norms are group norms here, so hidden channels go by
whole groups and what is left is normed as before; there are no statistics to be measured anew.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch

from fieldfare.common.blocks import MBConv
from fieldfare.common.blocks.nd import GROUPS
from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.elastic.ops import by_importance

from .config import NetworkConfig
from .create import create_network
from .reversible_unet import ReversibleUNet

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of a branch's groups of hidden channels that there may be."""


def space_of(largest: NetworkConfig) -> Space:
    """What may vary in a reversible U-Net.

    `blocks1` and so on are blocks of the stage on the way down of that level (0 is the finest),
    `decoder1` those on the way up, where there are several; `expansion1` is the hidden channels of
    its branches for each of their input, on both ways.

    Raises:
        ValueError: another network, or one whose branches cannot be cut by groups.
    """
    _check(largest)
    genes: dict[str, tuple[Value, ...]] = {}
    for level in range(len(largest.channels)):
        for name, blocks in (("blocks", largest.blocks), ("decoder", largest.decoder_blocks)):
            if level < len(blocks) and blocks[level] > 1:
                genes[f"{name}{level}"] = tuple(range(1, blocks[level] + 1))
        genes[f"expansion{level}"] = tuple(share * largest.expansion for share in SHARES)
    return Space(genes)


def config_of(choice: Choice, largest: NetworkConfig) -> NetworkConfig:
    """The ordinary network of a choice; that of the largest choice is `largest` itself."""
    config = replace(
        largest,
        blocks=_blocks(choice, "blocks", largest.blocks),
        decoder_blocks=_blocks(choice, "decoder", largest.decoder_blocks),
    )
    return replace(config, widths=dict(_widths(choice, config)))


def elastic_network(largest: NetworkConfig) -> ElasticNet:
    """Networks of every choice of `space_of(largest)`, of fresh weights.

    Raises:
        ValueError: see `space_of`.
    """
    return ElasticNet(space_of(largest), lambda choice: create_network(config_of(choice, largest)))


@torch.no_grad()
def sort_channels(network: ReversibleUNet) -> None:
    """Bring the groups of hidden channels into order, the most important first, in place.

    The network computes the same up to rounding. A group is as important as the sum of the sizes of
    the weights by which the projection reads it, each times that of its norm.
    """
    for block in network.modules():
        if isinstance(block, MBConv):
            _sort(block)


def _sort(block: MBConv) -> None:
    expand, first, _, spatial, second, *_, projection, _ = (
        cast(Any, layer) for layer in block.layers
    )
    read = projection.weight.abs().flatten(1).sum(dim=0) * second.weight.abs()
    order = by_importance(read.view(second.num_groups, -1).sum(dim=1))
    channels = torch.arange(len(read)).view(second.num_groups, -1)[order].flatten()
    for layer in (expand, first, spatial, second):
        for tensor in layer.parameters():
            tensor.copy_(tensor[channels])
    projection.weight.copy_(projection.weight[:, channels])


def _blocks(choice: Choice, name: str, own: tuple[int, ...]) -> tuple[int, ...]:
    genes = (f"{name}{level}" for level in range(len(own)))
    return tuple(
        choice.number(gene) if gene in choice else count
        for gene, count in zip(genes, own, strict=True)
    )


def _widths(choice: Choice, config: NetworkConfig) -> Iterator[tuple[str, list[int]]]:
    """Names of layers and their inputs and outputs, where they are not the whole network's."""
    projection = 7 if config.dropout else 6
    for part, blocks in (("encoder", config.blocks), ("decoder", config.decoder_blocks)):
        for level, count in enumerate(blocks):
            half = config.channels[level] // 2
            hidden = round(half * float(choice[f"expansion{level}"]))
            if hidden == half * config.expansion:
                continue
            for branch in ("first", "second"):
                for block in range(count):
                    place = f"{part}.{level}.{branch}.{block}.layers"
                    yield f"{place}.0", [half, hidden]
                    for layer in (1, 3, 4):
                        yield f"{place}.{layer}", [hidden, hidden]
                    yield f"{place}.{projection}", [hidden, half]


def _check(config: NetworkConfig) -> None:
    if config.architecture != "reversible_unet":
        raise ValueError(f"{config.architecture}: only a reversible U-Net can be made elastic")
    if config.widths:
        raise ValueError("is slimmed or cut already: only a whole network can be made elastic")
    if config.norm != "group" or config.attention != "none" or config.group_size > 1:
        raise ValueError(
            "only branches of depthwise filters with group norms and without attention can be cut"
        )
    for level, width in enumerate(config.channels):
        hidden = width // 2 * config.expansion
        if math.gcd(hidden, GROUPS) % len(SHARES):
            raise ValueError(
                f"level {level} has {hidden} hidden channels in a branch, which are no multiple of "
                f"{len(SHARES)}"
            )
