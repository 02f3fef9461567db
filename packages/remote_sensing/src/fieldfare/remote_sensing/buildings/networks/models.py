# SPDX-License-Identifier: Apache-2.0
"""Trained networks by name or path."""

from collections.abc import Sequence
from typing import Any

from fieldfare.common.errors import InputError
from fieldfare.common.weights import ModelCard, from_pretrained

from .building_network import BuildingNetwork, NetworkConfig

TASK = "building-footprints"


def load_model(name_or_path: str) -> tuple[BuildingNetwork, ModelCard]:
    """A packaged model by name or a weight file by path.

    Raises:
        InputError: no such model, or one with experts, see `load_any`.
    """
    network, card = load_any(name_or_path)
    if network.config.experts:
        raise InputError(
            f"{name_or_path}: has experts for {spoken(network.config.experts)} m per pixel, which "
            "only infer, eval, bench, export --gsd and train take"
        )
    return network, card


def load_any(name_or_path: str) -> tuple[BuildingNetwork, ModelCard]:
    """As `load_model`; one with experts, too."""

    def build(config: dict[str, Any]) -> BuildingNetwork:
        return BuildingNetwork(NetworkConfig.from_dict(config))

    return from_pretrained(name_or_path, TASK, build)


def describe(config: NetworkConfig) -> str:
    """One phrase on a network."""
    named = {"unetplusplus": "U-Net++", "unet": "U-Net", "lraspp": "LR-ASPP", "pem": "PEM"}
    experts = f", experts for {spoken(config.experts)} m" if config.experts else ""
    return f"{named[config.architecture]} on {config.encoder}{experts}"


def spoken(sizes: Sequence[float]) -> str:
    """Pixel sizes in words: 0.15 and 0.6."""
    *first, last = (f"{size:g}" for size in sizes)
    return f"{', '.join(first)} and {last}"
