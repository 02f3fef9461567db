# SPDX-License-Identifier: Apache-2.0
"""Networks that do less: fewer experts, merged ones, fewer hidden units."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.experts import chains
from fieldfare.common.experts.merge import merge_network
from fieldfare.common.experts.prune import prune_network
from fieldfare.common.experts.recycle import importance, smaller
from fieldfare.common.experts.usage import Statistics

from .experts import ExpertsConfig, held_of
from .netfound.config import NetFoundConfig
from .netfound.experts import bank_of, chains_of

ROUTED = ("learned", "random", "recurrent")
"""Kinds whose experts can be told apart by what their router says of each."""


def observed(network: nn.Module, passes: Iterable[object]) -> dict[str, Statistics]:
    """What each expert layer chose.

    Args:
        passes: runs the network once whenever it is advanced.
    """
    found: dict[str, Statistics] = {}
    with torch.no_grad():
        for _ in passes:
            for chain in chains(network):
                for name, choice in chain.choices.items():
                    found.setdefault(name, Statistics(choice.logits.shape[-1])).add(choice)
    return found


def check_routed(experts: ExpertsConfig | None, name: str) -> ExpertsConfig:
    """Experts of which some can be taken away or merged.

    Raises:
        InputError: there are none, or of another kind.
    """
    if experts is None:
        raise InputError(f"{name}: has no experts; its hidden units can be cut with --macs")
    if experts.kind not in ROUTED:
        raise InputError(
            f"{name}: of {experts.kind} experts none can be merged or taken away, only of "
            f"{', '.join(ROUTED)}"
        )
    return experts


def merged(
    network: nn.Module, experts: ExpertsConfig, known: Mapping[str, Statistics], count: int
) -> ExpertsConfig:
    """Merge experts in place until `count` matrices of a layer are left on average.

    Raises:
        InputError: some were merged already, or there are not so many.
    """
    try:
        merge_network(network, known, count)
    except ValueError as error:
        raise InputError(f"--expert-count: {error}") from None
    return replace(experts, held=held_of(network))


def without_unused(
    network: nn.Module, experts: ExpertsConfig, known: Mapping[str, Statistics]
) -> ExpertsConfig:
    """Take the experts away, in place, that were never chosen."""
    prune_network(network, known, 1)
    return replace(experts, held=held_of(network))


class HiddenUnits:
    """Gathers how active the hidden units of netFound's dense feed-forward layers are.

    Args:
        network: a classifier; hooks stay until `close`.
        layers: of its configuration.
    """

    def __init__(self, network: nn.Module, layers: int) -> None:
        self.network = network
        self.names = [name for own in chains_of(layers) for name in own]
        self._sums: dict[str, Tensor] = {}
        self._hooks = [
            network.get_submodule(name).register_forward_pre_hook(self._adder(name))
            for name in self.names
        ]

    def _adder(self, name: str) -> Any:
        def add(layer: nn.Module, given: tuple[Tensor]) -> None:
            tokens = given[0][..., 0].numel()
            found = importance(bank_of(layer), given[0]) * tokens
            self._sums[name] = self._sums[name] + found if name in self._sums else found

        return add

    def close(self) -> None:
        """No longer gather."""
        for hook in self._hooks:
            hook.remove()

    def narrowed(
        self, config: NetFoundConfig, share: float
    ) -> tuple[NetFoundConfig, dict[str, Tensor]]:
        """The configuration and tensors of the network with its most active units alone.

        Raises:
            InputError: no unit would be left, or nothing was gathered.
        """
        units = int(share * config.intermediate_size + 1e-9)
        if not units or not self._sums:
            raise InputError(
                "--macs: leaves no hidden unit" if not units else "--for: there is no such flow"
            )
        tensors = dict(self.network.state_dict())
        for name in self.names:
            dense = bank_of(self.network.get_submodule(name))
            part = smaller(dense, self._sums[name], units / config.intermediate_size)
            tensors[f"{name}.Wi.weight"] = part.inner.detach()[0]
            tensors[f"{name}.Wo.weight"] = part.outer.detach()[0]
        return replace(config, intermediate_size=units), tensors
