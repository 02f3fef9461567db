# SPDX-License-Identifier: Apache-2.0
"""One door to any of the networks."""

import torch

from fieldfare.common.slim.widths import resize

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
        ValueError: unknown mode, a mode that the architecture does not have, or widths that do not
            go with it.
    """
    network: Network
    if config.architecture == "reversible_unet":
        network = ReversibleUNet(config, memory)
    elif memory == "none":
        network = ResUNetASPP(config)
    else:
        raise ValueError(f"memory={memory!r}: {config.architecture} has no reversible stages")
    resize(network, config.widths)
    return network


def check_sizes(network: Network) -> None:
    """Of a network of slices: refuse an encoder that takes images of one size only.

    Raises:
        ValueError: with the encoder's own words.
    """
    config = network.config
    if not config.encoder:
        return
    training = network.training
    try:
        with torch.inference_mode():
            for sides in ((2, 3), (4, 4)):
                size = [network.stride * side for side in sides]
                network.eval()(torch.zeros(1, len(config.modalities), *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"encoder {config.encoder}: does not take slices of any size ({error}); choose another"
        ) from None
    finally:
        network.train(training)
