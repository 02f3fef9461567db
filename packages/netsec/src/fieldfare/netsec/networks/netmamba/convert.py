# SPDX-License-Identifier: Apache-2.0
"""Published NetMamba checkpoints, and encoders for classifiers of other lengths."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..conversion import Published, Shapes, load_part
from .config import NetMambaConfig
from .network import NetMamba, NetMambaClassifier, resize_positions
from .pretraining import NetMambaPretraining


def config_of(shapes: Shapes) -> NetMambaConfig:
    """See `conversion.Published`."""
    _, positions, embed_dim = shapes.of("pos_embed", 3)
    _, _, stride = shapes.of("patch_embed.proj.weight", 3)
    inner, state_dim = shapes.of("blocks.0.mixer.A_log")
    _, _, conv_kernel = shapes.of("blocks.0.mixer.conv1d.weight", 3)
    decoder: dict[str, Any] = {}
    if "decoder_pos_embed" in shapes:
        decoder = {
            "decoder_embed_dim": shapes.of("decoder_pos_embed", 3)[2],
            "decoder_depth": shapes.depth("decoder_blocks"),
        }
    return NetMambaConfig(
        byte_length=(positions - 1) * stride,
        stride=stride,
        embed_dim=embed_dim,
        depth=shapes.depth("blocks"),
        state_dim=state_dim,
        conv_kernel=conv_kernel,
        expand=inner // max(embed_dim, 1),
        **decoder,
    )


PUBLISHED = Published(
    name="netmamba",
    title="NetMamba",
    paper="arXiv 2405.11449",
    head="head.weight",
    config=config_of,
    classifier=NetMambaClassifier,
    pretraining=NetMambaPretraining,
    settings={"hidden": ["addresses"], "directed": True},
    limits="trained on the published bytes; ours differ from them in packets whose payload the "
    "published pre-processing takes for headers (DNS, NTP, tunnels)",
)


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
    load_part(network, found, expected, path)
