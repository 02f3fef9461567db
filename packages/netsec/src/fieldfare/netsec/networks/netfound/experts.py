# SPDX-License-Identifier: Apache-2.0
"""Experts in netFound: one chain of layers over the tokens of bursts, one over a flow's bursts.

Which expert a token gets depends on its flow alone: bursts of like length are computed together,
and padding chooses no expert. The dropout within a dense feed-forward layer is gone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fieldfare.common.experts import Bank, Chain, Choice, State, Weights
from fieldfare.common.experts.stochastic import hashed

from ..experts import ExpertsConfig, place_experts
from .attention import GatedMLP
from .config import PROTOCOLS
from .embedding import FlowInputs
from .records import ICMP, TCP, UDP

LAYERS = "base_transformer.encoder.layer"
_LONGEST = 4096
"""Tokens of a burst are numbered below it, in a flow's key."""


@dataclass
class Routing:
    """What the encoder must tell the routers.

    Attributes:
        bursts, flows: the chains.
        keyed: flows get keys.
        rows: of the last pass, the places of each part's bursts among the B * S of the batch.
        shape: of the last pass, (B, S).
    """

    bursts: Chain
    flows: Chain
    keyed: bool
    rows: Sequence[Tensor] = ()
    shape: tuple[int, int] = (0, 0)

    def begin(
        self, inputs: FlowInputs, parts: Sequence[FlowInputs], rows: Sequence[Tensor], compat: bool
    ) -> None:
        """Before a pass.

        Args:
            inputs: of the batch.
            parts: of the bursts that are computed together, as flows of one burst.
            rows: their places.
            compat: padding is computed like tokens, as published.
        """
        real = inputs.mask[:, :, 0]
        keys = flow_keys(inputs.ids) if self.keyed else None
        self.rows, self.shape = rows, (real.shape[0], real.shape[1])
        self.bursts.given = [
            State(
                mask=None if compat else part.mask[:, 0],
                keys=None if keys is None else keys[places // real.shape[1]],
                classes=part.protocol,
            )
            for part, places in zip(parts, rows, strict=True)
        ]
        mask = None if compat else real
        self.flows.given = State(mask=mask, keys=keys, classes=inputs.protocol)


def flow_keys(ids: Tensor) -> Tensor:
    """(B, S, L) int64 tokens -> (B,) int64, a number of what the flow says, whatever the padding.

    Flows that say the same have the same key, as they have the same answer.
    """
    bursts = torch.arange(ids.shape[1], device=ids.device)[:, None] * _LONGEST
    places = bursts + torch.arange(ids.shape[2], device=ids.device)
    return (ids * hashed(places)).sum(dim=(1, 2))


def chains_of(layers: int) -> list[list[str]]:
    """Names of the feed-forward layers of each chain."""
    return [
        [f"{LAYERS}.{number}.{part}_encoder.mlp" for number in range(layers)]
        for part in ("burst", "flow")
    ]


def bank_of(layer: nn.Module) -> Bank:
    """A dense feed-forward layer as a bank of one expert."""
    mlp = cast(GatedMLP, layer)
    weights = Weights(mlp.Wi.weight[None], mlp.Wo.weight[None], None, None)
    return Bank(1, 1, 1, activation="gelu_tanh", gated=True).like(weights)


def by_protocol(count: int) -> Tensor:
    """(PROTOCOLS,) int64: TCP, UDP, ICMP and all others get an expert of their own, if so many."""
    table = torch.full((PROTOCOLS,), 3)
    table[torch.tensor([TCP, UDP, ICMP])] = torch.arange(3)
    return table.clamp(max=count - 1)


def install_experts(network: nn.Module, layers: int, config: ExpertsConfig) -> None:
    """Replace all feed-forward layers; see `experts.place_experts`."""
    made = place_experts(network, chains_of(layers), bank_of, config, by_protocol(config.count))
    base: Any = network.get_submodule("base_transformer")
    base.routing = Routing(made[0], made[1], config.keyed)


def used(network: nn.Module) -> tuple[Tensor, Tensor]:
    """What the flows of the last pass ran.

    Returns:
        (B, M, E) int64, tokens of each flow that ran each expert of each layer, in the order of
        `chains_of`; (B, M) int64, tokens of each flow that a layer saw.
    """
    base: Any = network.get_submodule("base_transformer")
    routing: Routing = base.routing
    flows, bursts = routing.shape
    experts, tokens = [], []
    for found in routing.bursts.parts.values():
        ran = found[0].chosen.new_zeros(flows, found[0].chosen.shape[-1], dtype=torch.int64)
        seen = ran.new_zeros(flows)
        for choice, places in zip(found, routing.rows, strict=True):
            flow = places // bursts
            ran = ran.index_add(0, flow, choice.chosen.sum(dim=1))
            seen = seen.index_add(0, flow, _counted(choice))
        experts.append(ran)
        tokens.append(seen)
    for (choice,) in routing.flows.parts.values():
        experts.append(choice.chosen.sum(dim=1))
        tokens.append(_counted(choice))
    most = max(one.shape[1] for one in experts)
    padded = [nn.functional.pad(one, (0, most - one.shape[1])) for one in experts]
    return torch.stack(padded, dim=1), torch.stack(tokens, dim=1)


def _counted(choice: Choice) -> Tensor:
    """(B,) tokens of each sequence that count."""
    if choice.mask is None:
        rows, length = choice.chosen.shape[:2]
        return torch.full((rows,), length, device=choice.chosen.device)
    return choice.mask.sum(dim=1)
