# SPDX-License-Identifier: Apache-2.0
"""An elastic U-Net++ on EfficientNet-Lite 0: one set of weights, networks of 31,536 sizes.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791), for the encoder: expansion and number of blocks,
kernels through learnt maps. In the decoder of Zhou et al. 2018 (arXiv 1807.10165) the widths of the
nodes and the depth of the whole vary.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.elastic.ops import Index, by_importance

from .building_network import BuildingNetwork, NetworkConfig
from .efficientnet_lite import EXPANSION, KERNELS, VARIANTS
from .unetplusplus import FULL_DEPTH

ENCODER = "lite0"
WIDTHS, BLOCKS = VARIANTS["tf_efficientnet_lite0"]
FEATURES = (320, 112, 40, 24, 16)
"""Channels of the encoder's features, coarsest first."""

DECODER = (256, 128, 64, 32, 16)

NEEDS_DEEPEST = ("head", "late", "blocks5", "kernel5")
"""Genes of what only the deepest map needs."""

SPACE = Space(
    {
        "output": (3, 4),
        "nodes": (0.5, 0.75, 1.0),
        "head": (0.25, 0.5, 0.75, 1.0),
        "early": (3, 4, 6),
        "middle": (3, 4, 6),
        "late": (3, 4, 6),
        "blocks3": (2, 3),
        "blocks4": (2, 3),
        "blocks5": (2, 3, 4),
        "kernel2": (3, 5),
        "kernel4": (3, 5),
        "kernel5": (3, 5),
    },
    dict.fromkeys(NEEDS_DEEPEST, ("output", (4,))),
)
"""`output`: depth of U-Net++. `nodes`: share of the channels of the inner nodes; `head`: of those
that make the deepest map. `early`, `middle`, `late`: expansion of the inverted residuals in stages
1 and 2, 3 and 4, 5 and 6. `blocks` and `kernel` are of a stage."""

_EXPANSIONS = {1: "early", 2: "early", 3: "middle", 4: "middle", 5: "late", 6: "late"}


def config_of(choice: Choice, largest: NetworkConfig) -> NetworkConfig:
    """The ordinary network of a choice; that of the largest choice is `largest` itself."""
    blocks = tuple(_gene(choice, f"blocks{n}", own) for n, own in enumerate(BLOCKS))
    kernels = tuple(_gene(choice, f"kernel{n}", own) for n, own in enumerate(KERNELS))
    return replace(
        largest,
        levels=choice.number("output"),
        decoder_channels=tuple(round(float(choice["head"]) * width) for width in DECODER),
        encoder_blocks=() if blocks == BLOCKS else blocks,
        encoder_kernels=() if kernels == KERNELS else kernels,
        widths=dict(_widths(choice, blocks, len(largest.outputs))),
    )


def _gene(choice: Choice, gene: str, own: int) -> int:
    return choice.number(gene) if gene in choice else own


def _node(choice: Choice, d: int, level: int) -> int:
    """Channels of the node x_d_l; those that vary are multiples of 4."""
    if d == 0:
        return round(float(choice["head"]) * DECODER[level])
    return max(4, round(float(choice["nodes"]) * FEATURES[level + 1] / 4) * 4)


def _nodes(choice: Choice) -> list[tuple[int, int]]:
    """(d, level) of the nodes that a choice has, x_0_4 left out."""
    first = FULL_DEPTH - choice.number("output")
    return [(d, level) for level in range(FULL_DEPTH) for d in range(first, level + 1)]


def _inputs(choice: Choice, d: int, level: int) -> list[int]:
    """Channels of what a node joins, in order: the map below, its neighbours, the feature."""
    below = _node(choice, d, level - 1) if level > d else FEATURES[d]
    return [
        below,
        *(_node(choice, k, level) for k in range(d + 1, level + 1)),
        FEATURES[level + 1],
    ]


def _widths(
    choice: Choice, blocks: tuple[int, ...], outputs: int
) -> Iterator[tuple[str, list[int]]]:
    """Names of layers and their inputs and outputs, where they are not the whole network's."""
    last = 6 if choice.number("output") == FULL_DEPTH else 4
    for stage in range(1, last + 1):
        expansion = choice.number(_EXPANSIONS[stage])
        for block in range(blocks[stage] if expansion < EXPANSION else 0):
            inputs, inside = WIDTHS[stage - (block == 0)], 0
            inside, place = expansion * inputs, f"encoder.model.blocks.{stage}.{block}"
            yield f"{place}.conv_pw", [inputs, inside]
            for layer in ("bn1", "conv_dw", "bn2"):
                yield f"{place}.{layer}", [inside, inside]
            yield f"{place}.conv_pwl", [inside, WIDTHS[stage]]
    if choice["nodes"] == 1.0:
        return
    for d, level in _nodes(choice):
        width, place = _node(choice, d, level), f"decoder.blocks.x_{d}_{level}"
        yield f"{place}.conv1.0", [sum(_inputs(choice, d, level)), width]
        if d:
            yield f"{place}.conv2.0", [width, width]
            yield f"{place}.conv1.1", [width, width]
            yield f"{place}.conv2.1", [width, width]
    for number in range(FULL_DEPTH - 1):
        yield f"deep_heads.{number}", [_node(choice, FULL_DEPTH - 1 - number, 3), outputs]


def _indices(choice: Choice) -> dict[str, tuple[Index, ...]]:
    """Inputs of the nodes' first layers, which are of several origins: the first of each."""
    found: dict[str, tuple[Index, ...]] = {}
    for d, level in _nodes(choice):
        whole, own = (_inputs(one, d, level) for one in (SPACE.largest(), choice))
        starts = [sum(whole[:place]) for place in range(len(whole))]
        places = [torch.arange(s, s + n) for s, n in zip(starts, own, strict=True)]
        if own != whole:
            name = f"decoder.blocks.x_{d}_{level}.conv1.0.weight"
            found[name] = (_node(choice, d, level), torch.cat(places))
    return found


def elastic_network(largest: NetworkConfig) -> ElasticNet:
    """Networks of every choice of `SPACE`; of fresh weights, as large as `largest`.

    Raises:
        ValueError: not a U-Net++ on EfficientNet-Lite 0 at its full size.
    """
    plain = replace(NetworkConfig(), **{n: getattr(largest, n) for n in ("in_channels", "outputs")})
    plain = replace(plain, gsd=largest.gsd, mean=largest.mean, std=largest.std)
    if replace(largest, queries=plain.queries) != plain:
        raise ValueError(f"only a whole U-Net++ on {ENCODER} can be made elastic, not {largest}")
    kernels = {
        f"encoder.model.blocks.{stage}.{block}.conv_dw.weight": SPACE.genes[f"kernel{stage}"]
        for stage in (2, 4, 5)
        for block in range(BLOCKS[stage])
    }
    return ElasticNet(
        SPACE,
        lambda choice: BuildingNetwork(config_of(choice, largest)),
        kernels=kernels,
        indices=_indices,
    )


@torch.no_grad()
def sort_channels(network: BuildingNetwork) -> None:
    """Bring the channels that can be cut into order, the most important first, in place.

    The network computes the same up to rounding. A channel is as important as the sum of the sizes
    of the weights by which other layers read it, times that of its norm.
    """
    layers = dict(network.named_modules())
    for makers, readers in _groups(network):
        norm: Any = layers[makers[-1]]
        importance, count = torch.zeros(()), len(norm.weight)
        for name, start in readers:
            read: Any = layers[name].weight
            read = read[:, start : start + count]
            importance = importance + read.abs().flatten(2).sum(dim=(0, 2))
        order = by_importance(importance * norm.weight.abs())
        for name in makers:
            for tensor in _tensors(layers[name]):
                tensor.copy_(tensor[order])
        for name, start in readers:
            weight: Any = layers[name].weight
            weight[:, start : start + count] = weight[:, order + start]


def _tensors(layer: nn.Module) -> list[Tensor]:
    return [one for one in (*layer.parameters(), *layer.buffers()) if one.ndim]


def _groups(network: BuildingNetwork) -> Iterator[tuple[list[str], list[tuple[str, int]]]]:
    """Layers that make channels, the norm last, and (name, first input) of those that read them."""
    for stage in range(1, len(BLOCKS)):
        for block in range(BLOCKS[stage]):
            place = f"encoder.model.blocks.{stage}.{block}"
            makers = [f"{place}.{layer}" for layer in ("conv_pw", "bn1", "conv_dw", "bn2")]
            yield makers, [(f"{place}.conv_pwl", 0)]
    readers: dict[tuple[int, int], list[tuple[str, int]]] = {}
    whole = SPACE.largest()
    for d, level in _nodes(whole):
        place, start = f"decoder.blocks.x_{d}_{level}", 0
        yield [f"{place}.conv1.0", f"{place}.conv1.1"], [(f"{place}.conv2.0", 0)]
        below = [(d, level - 1)] if level > d else [None]
        origins = [*below, *((k, level) for k in range(d + 1, level + 1)), None]
        for origin, width in zip(origins, _inputs(whole, d, level), strict=True):
            if origin:
                readers.setdefault(origin, []).append((f"{place}.conv1.0", start))
            start += width
    readers[0, 3] = [("decoder.blocks.x_0_4.conv1.0", 0)]
    for number in range(FULL_DEPTH - 1):
        readers.setdefault((FULL_DEPTH - 1 - number, 3), []).append((f"deep_heads.{number}", 0))
    for (d, level), found in readers.items():
        place = f"decoder.blocks.x_{d}_{level}"
        yield [f"{place}.conv2.0", f"{place}.conv2.1"], found
    last = "decoder.blocks.x_0_4"
    yield [f"{last}.conv1.0", f"{last}.conv1.1"], [(f"{last}.conv2.0", 0)]
    yield [f"{last}.conv2.0", f"{last}.conv2.1"], [("segmentation_head.0", 0)]
