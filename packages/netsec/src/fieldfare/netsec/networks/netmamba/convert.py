# SPDX-License-Identifier: Apache-2.0
"""Published NetMamba checkpoints as our model files, and pre-trained encoders as classifiers'."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, fit_state_dict, load_checkpoint

from ..conversion import class_names, save_converted
from .config import NetMambaConfig
from .network import NetMamba, NetMambaClassifier, resize_positions
from .pretraining import NetMambaPretraining

ARCHITECTURE = "netmamba"


def convert_checkpoint(
    source: Path, target: Path, *, task: str, classes: Sequence[str] | None = None
) -> ModelCard:
    """Write a published checkpoint, pre-trained or fine-tuned, as one of our model files.

    Args:
        source: a .pth file, with the state dict under `model` or bare.
        target: the .safetensors file to write.
        task: of the card.
        classes: names of a fine-tuned checkpoint's classes, in order; `class_0` and so on when
            None. Not for a pre-trained one.

    Returns:
        The card; its config is that of a `classifier.ClassifierConfig`, with `classes` None for a
        pre-trained checkpoint.

    Raises:
        InputError: unreadable, no NetMamba checkpoint, or one that does not fit the classes.
    """
    tensors = {name: tensor.float() for name, tensor in load_checkpoint(source).items()}
    config = infer_config(tensors, source)
    names = class_names(tensors.get("head.weight"), classes, source)
    with torch.device("meta"):
        network: nn.Module = (
            NetMambaPretraining(config) if names is None else NetMambaClassifier(config, len(names))
        )
    return save_converted(
        network,
        tensors,
        source,
        target,
        title="NetMamba",
        paper="arXiv 2405.11449",
        task=task,
        config={
            "architecture": ARCHITECTURE,
            "network": config.to_dict(),
            "classes": names,
            "hidden": ["addresses"],
            "directed": True,
        },
        limits="trained on the published bytes; ours differ from them in packets whose payload the "
        "published pre-processing takes for headers (DNS, NTP, tunnels)",
    )


def infer_config(tensors: Mapping[str, Tensor], path: Path) -> NetMambaConfig:
    """The configuration that a published state dict's shapes imply.

    Args:
        path: for messages.

    Raises:
        InputError: no NetMamba state dict.
    """

    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in tensors or tensors[name].ndim != dimensions:
            raise InputError(f"{path}: is no NetMamba checkpoint: no fitting {name}")
        return tensors[name].shape

    def depth(blocks: str) -> int:
        found = (re.match(rf"{blocks}\.(\d+)\.", name) for name in tensors)
        return len({match[1] for match in found if match})

    _, positions, embed_dim = shape("pos_embed", 3)
    _, _, stride = shape("patch_embed.proj.weight", 3)
    inner, state_dim = shape("blocks.0.mixer.A_log", 2)
    _, _, conv_kernel = shape("blocks.0.mixer.conv1d.weight", 3)
    decoder: dict[str, Any] = {}
    if "decoder_pos_embed" in tensors:
        decoder = {
            "decoder_embed_dim": shape("decoder_pos_embed", 3)[2],
            "decoder_depth": depth("decoder_blocks"),
        }
    try:
        return NetMambaConfig(
            byte_length=(positions - 1) * stride,
            stride=stride,
            embed_dim=embed_dim,
            depth=depth("blocks"),
            state_dim=state_dim,
            conv_kernel=conv_kernel,
            expand=inner // max(embed_dim, 1),
            **decoder,
        )
    except ValueError as error:
        raise InputError(f"{path}: fits no NetMamba: {error}") from None


def load_encoder(network: NetMamba, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Take the encoder of a pre-trained or fine-tuned network; other lengths are interpolated.

    Args:
        network: classifier or pre-training; its head and decoder stay as they are.
        path: for messages.

    Raises:
        InputError: they do not fit.
    """
    with torch.device("meta"):
        expected = NetMamba(network.config).state_dict()
    found = {name: tensor for name, tensor in tensors.items() if name in expected}
    if "pos_embed" in found and found["pos_embed"].ndim == 3:
        found["pos_embed"] = resize_positions(found["pos_embed"], network.config.tokens)
    fit = fit_state_dict(found, expected)
    fit.require_complete(path)
    network.load_state_dict(fit.tensors, strict=False)
