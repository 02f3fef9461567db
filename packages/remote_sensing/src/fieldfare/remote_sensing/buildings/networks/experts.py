# SPDX-License-Identifier: Apache-2.0
"""Layers of which every pixel size of imagery has its own: experts chosen by the raster.

Zhang et al. 2023, AdvMoE (arXiv 2308.10110): one choice of an expert for a whole network. There a
router looks at the image; here the raster says its pixel size, so nobody has to guess. Norms within
an expert are its own, too, as in Chang et al. 2019 (arXiv 1906.03950): its images alone make their
statistics, and what they cost is folded away afterwards.
"""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

OWN = (
    *("encoder.model.conv_stem", "encoder.model.bn1"),
    *("encoder.model.blocks.0", "encoder.model.blocks.1"),
    *("decoder.blocks.x_0_3", "decoder.blocks.x_1_3", "decoder.blocks.x_2_3"),
    *("decoder.blocks.x_3_3", "decoder.blocks.x_0_4"),
    *("deep_heads.0", "deep_heads.1", "deep_heads.2", "segmentation_head"),
)
"""Of which each expert has its own: the finest stages of encoder and decoder, and the heads, 2 % of
the weights of U-Net++ on lite0. Sharpness and noise of a sensor meet the network there; what a roof
looks like from farther away is common to all."""

_PART = ".experts."


class Gate:
    """Which expert each image of the present batch gets; all switches of a network ask it."""

    def __init__(self) -> None:
        self.chosen: Tensor | None = None


class Switch(nn.Module):
    """A layer in E copies; each image of a batch runs through one of them.

    Args:
        layer: of which every expert starts as a copy.
        count: E.
        gate: tells who runs through which.
    """

    def __init__(self, layer: nn.Module, count: int, gate: Gate) -> None:
        super().__init__()
        self.experts = nn.ModuleList(copy.deepcopy(layer) for _ in range(count))
        self.gate = gate

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the layer: (B, ...) each -> (B, ...).

        Raises:
            ValueError: nobody said which expert each image gets.
        """
        chosen = self.gate.chosen
        if chosen is None or len(chosen) != len(inputs[0]):
            raise ValueError("a network with experts must be told which expert each image gets")
        found: Tensor
        if (chosen == chosen[0]).all():
            found = self.experts[int(chosen[0])](*inputs)
            return found
        order = chosen.argsort(stable=True)
        sizes = torch.bincount(chosen, minlength=len(self.experts)).tolist()
        parts = zip(*(value[order].split(sizes) for value in inputs), strict=True)
        outputs = [
            expert(*part) for expert, part in zip(self.experts, parts, strict=True) if len(part[0])
        ]
        return torch.cat(outputs)[order.argsort()]


def install(network: nn.Module, count: int, gate: Gate) -> None:
    """Put switches where `OWN` says, all experts alike; a lesser depth lacks some of the layers.

    Raises:
        ValueError: an encoder without such layers.
    """
    layers = dict(network.named_modules())
    if OWN[0] not in layers:
        raise ValueError("experts need an encoder of the kind of EfficientNet or MobileNet")
    for name in OWN:
        if name in layers:
            network.set_submodule(name, Switch(layers[name], count, gate))


def tensors_of(expert: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a network with experts the tensors of the dense one that an expert stands for."""
    found = {}
    for name, tensor in tensors.items():
        head, part, rest = name.partition(_PART)
        number, _, tail = rest.partition(".")
        if not part:
            found[name] = tensor
        elif int(number) == expert:
            found[f"{head}.{tail}"] = tensor
    return found


def spread(tensors: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
    """Tensors of a dense network under the names of one with experts, every expert a copy; what
    has experts already stays."""
    found = {}
    for name in wanted:
        head, part, rest = name.partition(_PART)
        source = f"{head}.{rest.partition('.')[2]}" if part else name
        found[name] = tensors[name if name in tensors else source]
    return found


def check_sizes(experts: Sequence[float], gsd: float) -> None:
    """Refuse pixel sizes of experts that no raster could choose between.

    Raises:
        ValueError: fewer than two, not ascending, or two that look alike at the model's pixel size.
    """
    if len(experts) < 2 or any(not 0 < size < math.inf for size in experts):
        raise ValueError("give at least two pixel sizes, metres")
    seen = [max(size, gsd) for size in experts]
    for first, second, finer, coarser in zip(seen, seen[1:], experts, experts[1:], strict=False):
        if finer >= coarser:
            raise ValueError("give the pixel sizes from fine to coarse")
        if first == second:
            raise ValueError(
                f"{finer:g} and {coarser:g} m look alike to a model of {gsd:g} m per pixel, at "
                "which finer imagery is read"
            )


def nearest(experts: Sequence[float], size: float | None, gsd: float) -> int:
    """The expert of a raster: the nearest by the ratio of pixel sizes, the finer of two.

    Args:
        experts: their pixel sizes, metres.
        size: of the raster, metres; that of the model where it is unknown.
        gsd: of the model. Finer imagery is read at it, so nothing counts as finer.
    """
    wanted = math.log(max(size or gsd, gsd))
    far = [abs(math.log(max(expert, gsd)) - wanted) for expert in experts]
    return far.index(min(far))
