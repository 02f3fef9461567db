# SPDX-License-Identifier: Apache-2.0
"""The expert layer: router, choice, dispatch, sum."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .bank import Bank
from .choice import Choice, Choose, with_k
from .routing import State


class Routed(NamedTuple):
    """What a layer gives: the output, what was chosen, and the state for the next layer."""

    output: Tensor
    choice: Choice
    state: State


class ExpertLayer(nn.Module):
    """A router, a way to choose, and experts in groups; the experts are numbered through.

    Args:
        router: see `routing.Router`.
        choose: see `choice.Choose`.
        groups: a `Bank`, or what `zero` has; each with `count` experts.
        shared: what every token gets besides, (N, D) -> (N, O).
        scale: the experts see this many times the tokens; MoE++ has k.
        dense: where each token is known to choose every expert, one product serves all.

    Raises:
        ValueError: the groups do not have as many experts as the router.
    """

    def __init__(
        self,
        router: nn.Module,
        choose: Choose,
        groups: Sequence[nn.Module],
        *,
        shared: nn.Module | None = None,
        scale: float = 1.0,
        dense: bool = True,
    ) -> None:
        super().__init__()
        self.router: Any = router
        self.choose = choose
        self.groups: Any = nn.ModuleList(groups)
        self.shared = shared
        self.scale, self.dense = scale, dense
        self.count = sum(self.sizes)
        if self.count != self.router.count:
            raise ValueError(f"the router has {self.router.count} experts, not {self.count}")

    @property
    def sizes(self) -> list[int]:
        """Experts of each group."""
        return [group.count for group in self.groups]

    def route(self, x: Tensor, state: State) -> tuple[Choice, State]:
        """What (..., T, D) chooses, and the state for the next layer."""
        logits, memory = self.router(x, state)
        return self.choose(logits, state.mask), state.remembering(memory)

    def run(self, x: Tensor, choice: Choice) -> Tensor:
        """(..., T, D) through the experts chosen, (..., T, O).

        Exported and compiled, all experts run, and those that were not chosen count 0.
        """
        tokens = x.flatten(0, -2)
        shared = None if self.shared is None else self.shared(tokens)
        scaled = tokens if self.scale == 1 else tokens * self.scale
        weights = choice.weights.flatten(0, -2).to(x.dtype).split(self.sizes, dim=1)
        chosen: Sequence[Tensor | None] = [None] * len(self.groups)
        if not (choice.every and self.dense) and not torch.compiler.is_compiling():
            chosen = choice.chosen.flatten(0, -2).split(self.sizes, dim=1)
        outputs = map(self._group, self.groups, [scaled] * len(self.groups), weights, chosen)
        total = sum(outputs, start=torch.zeros((), dtype=x.dtype, device=x.device))
        total = total if shared is None else total + shared
        return total.view(*x.shape[:-1], -1)

    def macs(self, choice: Choice) -> int:
        """Multiply-accumulates of the feed-forward experts that were chosen.

        Router, shared part and the few of constant experts come on top; `efficiency.cost` counts
        them all.
        """
        chosen = choice.chosen.flatten(0, -2).split(self.sizes, dim=1)
        pairs = zip(self.groups, chosen, strict=True)
        return sum(group.macs(part) for group, part in pairs if isinstance(group, Bank))

    def ran(self, choice: Choice) -> Tensor:
        """(..., T) how many feed-forward experts each token ran."""
        parts = zip(self.groups, choice.chosen.split(self.sizes, dim=-1), strict=True)
        counts = [part.sum(dim=-1) for group, part in parts if isinstance(group, Bank)]
        return torch.stack([choice.chosen.new_zeros(choice.chosen.shape[:-1]).long(), *counts]).sum(
            0
        )

    @staticmethod
    def _group(group: nn.Module, x: Tensor, weights: Tensor, chosen: Tensor | None) -> Tensor:
        found: Tensor = group(x, weights, chosen)
        return found

    def forward(self, x: Tensor, state: State | None = None) -> Routed:
        """(..., T, D) -> (..., T, O), with the choice; T runs over the tokens of a sequence."""
        choice, after = self.route(x, State() if state is None else state)
        return Routed(self.run(x, choice), choice, after)


def set_experts_per_token(model: nn.Module, k: int) -> int:
    """Turn the dial of all expert layers of a model.

    Returns:
        How many layers have one.
    """
    layers = [module for module in model.modules() if isinstance(module, ExpertLayer)]
    for layer in layers:
        layer.choose = with_k(layer.choose, k)
    return len(layers)
