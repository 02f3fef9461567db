# SPDX-License-Identifier: Apache-2.0
"""Trained networks by name or path."""

from typing import Any

from fieldfare.common.weights import ModelCard, from_pretrained

from .config import NetworkConfig
from .create import Network, create_network

TASK = "brain-tumour-segmentation"

_NAMES = {"reversible_unet": "reversible MBConv U-Net", "resunet_aspp": "ResUNet-ASPP"}


def load_model(name_or_path: str) -> tuple[Network, ModelCard]:
    """A packaged model by name or a weight file by path, in evaluation mode, with its card.

    Raises:
        InputError: no such model, or a file of another task.
    """

    def build(config: dict[str, Any]) -> Network:
        return create_network(NetworkConfig.from_dict(config))

    return from_pretrained(name_or_path, TASK, build)


def describe(config: NetworkConfig) -> str:
    """One phrase on a network."""
    encoder = f" on {config.encoder}" if config.encoder else ""
    blocks = [name for name in (config.norm, config.attention) if name in ("evonorm", "eca")]
    blocks += [f"groups of {config.group_size}"] * (config.group_size > 1)
    more = f" with {', '.join(blocks)}" if blocks else ""
    return f"{config.ndim}D {_NAMES[config.architecture]}{encoder}{more} at {config.spacing:g} mm"
