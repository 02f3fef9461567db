# SPDX-License-Identifier: Apache-2.0
"""Experts drawn at random: one a layer and batch in training, one a sequence afterwards.

Zuo et al. 2021, THOR (arXiv 2110.04260), with `losses.consistency` between two passes. What the
experts differ in tells how sure the network is.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from .routing import State, certain, of_sequences


class StochasticRouter(nn.Module):
    """Draws an expert.

    In training one for the whole batch, uniformly, from torch's generator. In evaluation one for
    each sequence, by a hash of its key in `State.keys` and of the layer, so that a sequence gets
    the same one in every run and batch. Drawing for each time step, as the published evaluation by
    "sentence" does, is not offered.

    Args:
        count: E.
        layer: number of the layer, so that layers draw apart.

    Attributes:
        forced: this expert for all, or `all` of them, alike: with k = E their mean.
    """

    def __init__(self, count: int, layer: int = 0) -> None:
        super().__init__()
        self.count, self.layer = count, layer
        self.forced: int | Literal["all"] | None = None

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, Tensor | None]:
        """See `routing.Router`; logits are 0 and -inf.

        Raises:
            ValueError: evaluation without keys.
        """
        if self.forced == "all":
            return torch.zeros(*x.shape[:-1], self.count, device=x.device), None
        if self.forced is not None:
            expert = torch.full(x.shape[:-1], self.forced, device=x.device)
        elif self.training:
            expert = torch.randint(self.count, (), device=x.device).expand(x.shape[:-1])
        elif state.keys is None:
            raise ValueError(
                "a stochastic router wants `keys` of the sequences in the pass's state"
            )
        else:
            drawn = self.draw(state.keys)
            if x.ndim > 2:
                drawn = of_sequences(drawn, x.shape[0])
            expert = drawn.to(x.device).view(-1, *[1] * (x.ndim - 2)).expand(x.shape[:-1])
        return certain(expert, self.count), None

    def draw(self, keys: Tensor) -> Tensor:
        """(B,) the expert that sequences of these keys get, before anything runs."""
        return hashed(keys, self.layer) % self.count


def hashed(keys: Tensor, salt: int = 0) -> Tensor:
    """Int64 to int64 from 0 to 2^31 - 1 that look random, the same everywhere.

    The finaliser of splitmix64 (Steele et al. 2014, doi 10.1145/2660193.2660195).
    """
    step = (salt + 1) * 0x9E3779B97F4A7C15 % 2**64
    mixed = keys.long() + (step - 2**64 if step >= 2**63 else step)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    found: Tensor = _shifted(mixed ^ _shifted(mixed, 31), 33)
    return found


def members(model: nn.Module, run: Callable[[], Tensor], count: int) -> Tensor:
    """What the model says with each expert alone, in all layers at once.

    Args:
        model: with stochastic routers of at least `count` experts.
        run: a pass of the model.
        count: of members.

    Returns:
        (count, ...) answers.

    Raises:
        ValueError: the model has no such router.
    """
    found = routers(model)
    if not found or min(router.count for router in found) < count:
        raise ValueError(f"the model has no {count} experts to draw from in each layer")
    before = [router.forced for router in found]
    try:
        answers = []
        for member in range(count):
            force(model, [member] * len(found))
            answers.append(run())
    finally:
        force(model, before)
    return torch.stack(answers)


def routers(model: nn.Module) -> list[StochasticRouter]:
    """All of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, StochasticRouter)]


def force(model: nn.Module, experts: Sequence[int | Literal["all"] | None]) -> None:
    """Set `forced` of all stochastic routers: a member, an oracle's path, None to draw again.

    Raises:
        ValueError: not one for each router.
    """
    for router, expert in zip(routers(model), experts, strict=True):
        router.forced = expert


def spread(logits: Tensor) -> Tensor:
    """(M, ..., classes) of M members to (...): how far they disagree, 0 where they say the same.

    The information that naming the member would give of the class: entropy of the mean answer less
    the mean of the entropies, in nats (Houlsby et al. 2011, arXiv 1112.5745).
    """
    probability = logits.softmax(dim=-1)

    def entropy(p: Tensor) -> Tensor:
        each: Tensor = -torch.special.xlogy(p, p)
        return each.sum(dim=-1)

    return (entropy(probability.mean(dim=0)) - entropy(probability).mean(dim=0)).clamp_min(0)


def _shifted(value: Tensor, places: int) -> Tensor:
    """To the right, zeros coming in."""
    return (value >> places) & ((1 << (64 - places)) - 1)
