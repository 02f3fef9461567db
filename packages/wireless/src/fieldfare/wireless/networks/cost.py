# SPDX-License-Identifier: Apache-2.0
"""Operations of the message passing, from the network's configuration."""

from .graph import EDGE_FEATURES, NODE_FEATURES
from .precoder import IcgnnPrecoder


def network_macs(network: IcgnnPrecoder, users: int) -> int:
    """Real MACs of the message passing for one cell, linear layers only.

    The layers' solves come on top.
    """
    width, messages = network.config["width"], network.config["messages"]
    layers = network.config["layers"]
    edge = EDGE_FEATURES * messages
    node = 2 * width * messages
    node += 2 * width * (width + NODE_FEATURES + 2 * messages) + 2 * width * width
    node += 2 * (width + NODE_FEATURES)
    return layers * (users * users * edge + users * node) + users * NODE_FEATURES * width
