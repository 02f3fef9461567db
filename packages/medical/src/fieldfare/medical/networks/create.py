# SPDX-License-Identifier: Apache-2.0
"""One door to any of the networks."""

from .config import NetworkConfig
from .resunet_aspp import ResUNetASPP
from .reversible_unet import ReversibleUNet

Network = ReversibleUNet | ResUNetASPP


def create_network(config: NetworkConfig, memory: str = "none") -> Network:
    """A network with fresh weights.

    Args:
        memory: how activations are kept for the backward pass, see
            `fieldfare.common.blocks.ReversibleStage`; the weights and results are the same.

    Raises:
        ValueError: unknown mode, or a mode that the architecture does not have.
    """
    if config.architecture == "reversible_unet":
        return ReversibleUNet(config, memory)
    if memory != "none":
        raise ValueError(f"memory={memory!r}: {config.architecture} has no reversible stages")
    return ResUNetASPP(config)
