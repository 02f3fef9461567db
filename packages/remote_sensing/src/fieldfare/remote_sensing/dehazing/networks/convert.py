# SPDX-License-Identifier: Apache-2.0
"""Published DEA-Net checkpoints, in training or in deployed form, into safetensors files."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, fit_state_dict, load_checkpoint, save_model_file

from .deanet import DEANet, DEANetConfig
from .model import TASK

LEVELS = {
    "down_level1": "encode1",
    "down_level2": "encode2",
    "level3": "middle",
    "up_level2": "decode2",
    "up_level1": "decode1",
}

PARTS = (
    (r"^down1\.0\.", "down1."),
    (r"^fe_level_(\d)\.", r"enter\1."),
    (r"^up3\.0\.", "end."),
    (r"^(mix\d)\.conv\.", r"\1.project."),
    (r"\.conv2\.", ".conv."),
    (r"\.ca\.ca\.", ".attention.channel."),
    (r"\.sa\.sa\.", ".attention.place."),
    (r"\.pa\.pa2\.", ".attention.refine."),
)
"""Published names, as patterns, and ours."""

BRANCHES = ("conv1_5", "conv1_1.conv", "conv1_3.conv", "conv1_2.conv", "conv1_4.conv")
"""Of a detail-enhanced convolution: plain, central, vertical, horizontal, angular."""

KERNELS = ("weights.0", "weights.1", "differences.0", "differences.1", "weights.2")


def own_names(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published network by the names of `DEANet`.

    Of a deployed network the folded kernels become the plain branch, and the others are zero: the
    same function.
    """
    found: dict[str, Tensor] = {}
    details: dict[str, dict[str, Tensor]] = {}
    for name, tensor in published.items():
        if match := re.match(r"(\w+?)_block(\d+)\.", name):
            level = LEVELS.get(match[1], match[1])
            name = f"{level}.{int(match[2]) - 1}.{name[match.end() :]}"
        block, inside, rest = name.partition(".conv1.")
        if inside:
            details.setdefault(block, {})[rest] = tensor
            continue
        for theirs, ours in PARTS:
            name = re.sub(theirs, ours, name)
        linear = ".channel." in name and tensor.ndim == 4
        found[name] = tensor.flatten(1) if linear else tensor
    for block, tensors in details.items():
        for name, tensor in _detail(tensors).items():
            found[f"{block}.detail.{name}"] = tensor
    return found


def _detail(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One detail-enhanced convolution; what is unknown keeps its name."""
    if "weight" in tensors and "bias" in tensors:
        weight, bias = tensors["weight"], tensors["bias"]
        others = {name: torch.zeros_like(weight) for name in ("weights.1", "weights.2")}
        line = torch.zeros_like(weight[..., 0])
        others |= {"differences.0": line, "differences.1": line.clone()}
        biases = torch.zeros(len(BRANCHES), len(bias))
        biases[0] = bias
        return {"weights.0": weight, **others, "bias": biases}
    if any(f"{branch}.{kind}" not in tensors for branch in BRANCHES for kind in ("weight", "bias")):
        return dict(tensors)
    found = {
        ours: tensors[f"{theirs}.weight"] for ours, theirs in zip(KERNELS, BRANCHES, strict=True)
    }
    return {**found, "bias": torch.stack([tensors[f"{branch}.bias"] for branch in BRANCHES])}


def network_config(tensors: Mapping[str, Tensor], path: Path) -> DEANetConfig:
    """Read the network's shape off the names and shapes of `own_names`.

    Raises:
        InputError: these are not a DEA-Net's parameters.
    """

    def blocks(level: str) -> int:
        return len({name.split(".")[1] for name in tensors if name.startswith(f"{level}.")})

    first, second, third, fourth, fifth = (blocks(level) for level in LEVELS.values())
    try:
        width, channels = tensors["down1.weight"].shape[:2]
    except (KeyError, ValueError):
        raise InputError(f"{path}: holds no DEA-Net (it has no down1.0.weight)") from None
    return DEANetConfig(channels, width, (first, second, third, fourth, fifth))


def convert(published: Path, target: Path) -> tuple[ModelCard, int]:
    """Write a published checkpoint as a self-describing model file.

    Returns:
        Its card, and the number of parameters.

    Raises:
        InputError: not a checkpoint, or not one of DEA-Net.
    """
    tensors = own_names(load_checkpoint(published))
    config = network_config(tensors, published)
    fit = fit_state_dict(tensors, DEANet(config).state_dict())
    fit.require_complete(published)
    card = ModelCard(
        name=target.stem,
        task=TASK,
        summary=f"DEA-Net, converted from {published.name}.",
        config=config.to_dict(),
        limits="converted from a checkpoint: what it was trained on is for its authors to say",
    )
    save_model_file(target, {name: t.float() for name, t in fit.tensors.items()}, card)
    return card, sum(tensor.numel() for tensor in fit.tensors.values())
