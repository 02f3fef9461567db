# SPDX-License-Identifier: Apache-2.0
"""Trained networks by name or path."""

from typing import Any

from fieldfare.common.weights import ModelCard, from_pretrained

from .building_network import BuildingNetwork, NetworkConfig

TASK = "building-footprints"


def load_model(name_or_path: str) -> tuple[BuildingNetwork, ModelCard]:
    """A packaged model by name or a weight file by path."""

    def build(config: dict[str, Any]) -> BuildingNetwork:
        return BuildingNetwork(NetworkConfig.from_dict(config))

    return from_pretrained(name_or_path, TASK, build)


def describe(config: NetworkConfig) -> str:
    """One phrase on a network."""
    named = {"unetplusplus": "U-Net++", "unet": "U-Net", "lraspp": "LR-ASPP", "pem": "PEM"}
    return f"{named[config.architecture]} on {config.encoder}"
