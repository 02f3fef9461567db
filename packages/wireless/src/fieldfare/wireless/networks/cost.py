# SPDX-License-Identifier: Apache-2.0
"""Operations of the message passing, from the network's configuration."""

from .graph import FEATURES
from .precoder import IcgnnPrecoder


def network_macs(network: IcgnnPrecoder, users: int) -> int:
    """Real MACs of the message passing for one cell, linear layers only.

    What is pooled is multiplied once for all users. The layers' solves come on top.
    """
    width, layers = network.config["width"], network.config["layers"]
    each = FEATURES * width + width * width + 2 * width
    shared = 2 * width * width
    return layers * (users * each + shared) + (layers - 1) * users * width * width
