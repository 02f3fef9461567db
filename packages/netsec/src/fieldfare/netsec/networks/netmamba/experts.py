# SPDX-License-Identifier: Apache-2.0
"""Experts in NetMamba, whose blocks hold no feed-forward layer: one is added beside each mixer.

Its output map begins at zero, so that the network begins as the one it is added to.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fieldfare.common.experts import Bank, Chain, State
from fieldfare.common.experts.stochastic import hashed

from ..experts import ExpertsConfig, place_experts

EXPANSION = 2
"""Hidden units of the added layer for each of the block's channels."""

_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_PROTOCOLS = 256


@dataclass
class Routing:
    """What the encoder must tell the routers.

    Attributes:
        chain: of the blocks.
        keyed: flows get keys.
    """

    chain: Chain
    keyed: bool

    def begin(self, data: Tensor) -> None:
        """Before a pass over (B, byte_length) uint8, or float in [-1, 1]."""
        values = data if data.dtype == torch.uint8 else ((data.float() + 1) * 127.5).round()
        values = values.long()
        version = values[:, 0] >> 4
        protocol = torch.where(version == 6, values[:, 6], values[:, 9])
        keys = None
        if self.keyed:
            places = torch.arange(values.shape[1], device=data.device)
            keys = ((values + 1) * hashed(places)).sum(dim=1)
        self.chain.given = State(keys=keys, classes=protocol)


class _Added(nn.Module):
    """The layer that experts are made of."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bank = Bank(1, dim, EXPANSION * dim, activation="silu")
        nn.init.zeros_(self.bank.outer)


def by_protocol(count: int) -> Tensor:
    """(256,) int64: TCP, UDP, ICMP and all others get an expert of their own, if so many."""
    table = torch.full((_PROTOCOLS,), 3)
    table[torch.tensor([_TCP, _UDP, _ICMP, _ICMPV6])] = torch.tensor([0, 1, 2, 2])
    return table.clamp(max=count - 1)


def install_experts(network: nn.Module, config: Any, experts: ExpertsConfig) -> None:
    """Add a layer of experts to each block; see `experts.place_experts`.

    Raises:
        ValueError: fresh weights, with which the network would not begin as it was; cells.
    """
    if experts.start == "fresh":
        raise ValueError("NetMamba's added experts begin at zero; take split or copies")
    if config.cells:
        raise ValueError("a network of cells has no blocks to add experts to")
    blocks = cast(Any, network).blocks
    for block, width in zip(blocks, config.widths, strict=True):
        block.feed = _Added(width)
    names = [f"blocks.{number}.feed" for number in range(len(blocks))]
    (chain,) = place_experts(
        network,
        [names],
        lambda layer: cast(_Added, layer).bank,
        experts,
        by_protocol(experts.count),
    )
    cast(Any, network).routing = Routing(chain, experts.keyed)


def used(network: nn.Module) -> tuple[Tensor, Tensor]:
    """What the flows of the last pass ran; as of `netfound.experts.used`."""
    routing: Routing = cast(Any, network).routing
    found = [choice.chosen for (choice,) in routing.chain.parts.values()]
    most = max(chosen.shape[-1] for chosen in found)
    ran = [nn.functional.pad(c.sum(dim=1), (0, most - c.shape[-1])) for c in found]
    tokens = torch.full((len(found[0]), len(found)), found[0].shape[1], device=found[0].device)
    return torch.stack(ran, dim=1), tokens
