# SPDX-License-Identifier: Apache-2.0
"""Operations of the message passing, from the network's configuration."""

from .graph import EDGE_FEATURES, NODE_FEATURES
from .models import load_precoder_network
from .precoder import IcgnnPrecoder


def network_macs(name_or_path: str, users: int) -> int:
    """Real MACs of the message passing for one cell; the layers' solves come on top."""
    network, _ = load_precoder_network(name_or_path)
    return count_macs(network, users)


def count_macs(network: IcgnnPrecoder, users: int) -> int:
    """As `network_macs`, of a network at hand; linear layers only."""
    width, messages = network.config["width"], network.config["messages"]
    layers = network.config["layers"]
    edge = EDGE_FEATURES * messages
    node = 2 * width * messages
    node += 2 * width * (width + NODE_FEATURES + 2 * messages) + 2 * width * width
    node += 2 * (width + NODE_FEATURES)
    return layers * (users * users * edge + users * node) + users * NODE_FEATURES * width
