# SPDX-License-Identifier: Apache-2.0
"""Mixtures of experts in the place of a classifier's feed-forward layers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from fieldfare.common.experts import Bank, Chain, chains, install, set_experts_per_token
from fieldfare.common.experts.choice import scheduled_k, with_k
from fieldfare.common.experts.host import layers
from fieldfare.common.experts.layer import ExpertLayer
from fieldfare.common.experts.losses import balance, consistency
from fieldfare.common.experts.plusplus import heterogeneous_cost
from fieldfare.common.experts.prune import select
from fieldfare.common.experts.recipes import Kind, Start, build

from ..options import EXPERTS

BALANCE = 0.01
"""Of the loss that keeps experts of learnt routers busy (arXiv 2101.03961, alpha)."""

_DIAL = ("learned", "random", "recurrent", "moe++")
ONE_EXPERT = ("lookup", "stochastic", "switch")
"""Kinds of which each token runs one expert."""
_BALANCED = ("learned", "recurrent", "switch", "moe++")
_APART = 1000
"""Seeds of the routers of different chains differ by it."""


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """What a card says of the experts of a network.

    Attributes:
        kind: one of `options.EXPERTS`.
        count: feed-forward experts of each layer, before any were taken away.
        k: of them each token runs.
        start: see `recipes.build`.
        seed: of fixed random routers.
        held: experts that are left, and matrices that they use, by layer; those not named hold
            `count` of each.
        by_layer: of them each token runs in each layer, in the order of the layers; empty: k in
            all. Of kinds with a dial.

    Raises:
        ValueError: out of range.
    """

    kind: Kind
    count: int = 8
    k: int = 4
    start: Start = "split"
    seed: int = 0
    held: Mapping[str, Sequence[int]] | None = None
    by_layer: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in EXPERTS:
            raise ValueError(f"experts must be one of {', '.join(EXPERTS)}, got {self.kind!r}")
        if self.start not in ("split", "copies", "fresh"):
            raise ValueError(f"start is {self.start!r}; it must be split, copies or fresh")
        if not 1 <= self.k <= self.count:
            raise ValueError(f"{self.k} experts per token of {self.count}")
        object.__setattr__(self, "by_layer", tuple(self.by_layer))  # a card's are a list
        if self.by_layer and not self.has_dial:
            raise ValueError(f"{self.kind} experts have no number of experts per token to set")
        if any(not 1 <= k <= self.count for k in self.by_layer):
            raise ValueError(f"{list(self.by_layer)} experts per token, by layer, of {self.count}")
        for name, sizes in (self.held or {}).items():
            if len(sizes) != 2 or not 1 <= sizes[1] <= sizes[0] <= self.count:
                raise ValueError(f"{name}: {list(sizes)} experts and matrices of {self.count}")

    @property
    def has_dial(self) -> bool:
        """Whether the experts per token can be set when it runs."""
        return self.kind in _DIAL

    @property
    def keyed(self) -> bool:
        """Whether its routers want a key of each flow."""
        return self.kind == "stochastic"

    def sentence(self) -> str:
        """For cards: what there is."""
        each = ", ".join(map(str, self.by_layer))
        run = f"{each} per token, layer by layer" if each else f"{self.k} per token"
        return f"{self.kind} experts, {self.count} a layer ({self.start}), {run}"

    def to_dict(self) -> dict[str, Any]:
        """What a model card holds."""
        found = asdict(self)
        return found if self.by_layer else {n: v for n, v in found.items() if n != "by_layer"}


def place_experts(
    network: nn.Module,
    names: Sequence[Sequence[str]],
    bank_of: Callable[[nn.Module], Bank],
    config: ExpertsConfig,
    classes: Tensor | None = None,
) -> list[Chain]:
    """Replace a network's feed-forward layers by experts made of them.

    Args:
        network: changed in place.
        names: of the layers, for each chain in the order in which they run.
        bank_of: a layer as a bank of one expert.
        config: of the experts.
        classes: (C,) int64, the expert that each class of inputs gets, for `lookup`.

    Returns:
        A chain for each list of names.

    Raises:
        ValueError: the experts do not divide the hidden units, or numbers by layer are not as
            many as layers.
    """
    found = []
    for place, own in enumerate(names):
        made: list[ExpertLayer] = []

        def make(
            number: int, layer: nn.Module, place: int = place, made: list[ExpertLayer] = made
        ) -> ExpertLayer:
            dense = bank_of(layer)
            if config.start == "copies":
                # Asked for and not touched: whoever bounds what a file may describe refuses it.
                torch.empty(config.count, sum(weight.numel() for weight in dense.parameters()))
            made.append(
                build(
                    config.kind, dense, experts=config.count, k=config.k,
                    start=config.start, number=number, before=made[-1] if made else None,
                    classes=classes, seed=config.seed + place * _APART,
                )
            )  # fmt: skip
            return made[-1]

        found.append(install(network, own, make))
    for name, (experts, matrices) in (config.held or {}).items():
        _shrink(network, name, experts, matrices)
    if config.by_layer:
        set_dial(network, config)
    return found


def _shrink(network: nn.Module, name: str, experts: int, matrices: int) -> None:
    """Give a layer the shape that a file holds after `compress`."""
    hosted = cast(Any, network.get_submodule(name))
    if experts < hosted.layer.count:
        hosted.layer = select(hosted.layer, list(range(experts)))
    bank: Bank = hosted.layer.groups[0]
    if matrices < bank.count:
        index = torch.arange(bank.count) % matrices
        hosted.layer.groups[0] = bank.like(bank.weights.each(lambda w: w[:matrices]), index)


def held_of(network: nn.Module) -> dict[str, list[int]]:
    """`ExpertsConfig.held` of a network whose experts were taken away or merged."""
    return {
        name: [layer.count, layer.groups[0].matrices] for name, layer in layers(network).items()
    }


def set_dial(network: nn.Module, config: ExpertsConfig) -> None:
    """Let each layer run as many experts per token as the card says.

    Raises:
        ValueError: numbers by layer are not as many as layers.
    """
    hosted = list(layers(network).values())
    each = config.by_layer or (config.k,) * len(hosted)
    if len(each) != len(hosted):
        raise ValueError(f"{len(each)} numbers of experts per token for {len(hosted)} layers")
    for layer, k in zip(hosted, each, strict=True):
        layer.choose = with_k(layer.choose, k)


def turn(network: nn.Module, config: ExpertsConfig, k: int) -> ExpertsConfig:
    """Set how many experts each token runs.

    Returns:
        The configuration with that number.

    Raises:
        ValueError: these experts have no such dial, or there are not so many.
    """
    if not config.has_dial:
        raise ValueError(f"{config.kind} experts have no number of experts per token to set")
    changed = replace(config, k=k, by_layer=())
    set_experts_per_token(network, k)
    return changed


def scheduled(config: ExpertsConfig, step: int, steps: int) -> int:
    """Experts per token at a step of training: those of a random router grow, from k to all."""
    if config.kind != "random" or config.k == config.count:
        return config.k
    return scheduled_k(step, max(1, steps - 1), config.k, config.count)


def balance_loss(network: nn.Module, config: ExpertsConfig) -> Tensor | None:
    """What a learnt router's loss has besides the task's, of the last pass; None of others."""
    if config.kind not in _BALANCED:
        return None
    hosted = layers(network)
    each = [
        balance(choice, _cost(config, hosted[name]))
        for chain in chains(network)
        for name, choice in chain.choices.items()
    ]
    return BALANCE * torch.stack(each).mean()


def _cost(config: ExpertsConfig, layer: ExpertLayer) -> Tensor | None:
    return heterogeneous_cost(layer) if config.kind == "moe++" else None


def answer(
    network: nn.Module, batch: Any, config: ExpertsConfig, step: int, steps: int
) -> tuple[list[Tensor], Tensor | None]:
    """Logits (B, C) at a step of training, of one pass or two, and what is added to their loss.

    Stochastic experts answer twice, with other draws; both must agree (THOR).
    """
    if config.has_dial and not config.by_layer:
        set_experts_per_token(network, scheduled(config, step, steps))
    logits: Tensor = network(batch)
    if not config.keyed:
        return [logits], balance_loss(network, config)
    again: Tensor = network(batch)
    return [logits, again], consistency(logits, again) / len(logits)
