# SPDX-License-Identifier: Apache-2.0
"""MoE++: beside feed-forward experts some that compute nothing, so that easy tokens cost nothing.

Jin et al. 2024, arXiv 2410.07348. Experts in order: feed-forward, constants, copy, zero.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .bank import Bank
from .choice import Choice, TopK, finish, largest
from .layer import ExpertLayer
from .routing import ResidualRouter
from .zero import Constant, Copy, Zero


@dataclass(frozen=True)
class PlusPlusTopK(TopK):
    """`TopK`, renormalised, whose last expert gives zero.

    Attributes:
        discard: the zero expert's weight is left out of the sum that the others are divided by, so
            that an expert chosen beside it has weight 1, as published by default. Otherwise what
            goes to zero scales the token down.
        spread: logits are divided by their standard deviation (N - 1) over the experts and
            multiplied by this before the softmax; None leaves them.
    """

    discard: bool = False
    spread: float | None = None

    def __call__(self, logits: Tensor, mask: Tensor | None = None) -> Choice:
        """See `Choose`."""
        routed = logits
        if self.spread is not None:
            routed = logits / logits.std(dim=-1, keepdim=True) * self.spread
        if not self.discard:
            return super().__call__(routed, mask)._replace(logits=logits)
        chosen = largest(routed, self.k)
        weights = routed.softmax(dim=-1) * chosen
        weights = torch.cat([weights[..., :-1], torch.zeros_like(weights[..., -1:])], dim=-1)
        total = weights.sum(dim=-1, keepdim=True)
        weights = weights / total.clamp_min(torch.finfo(weights.dtype).tiny)
        return finish(chosen, weights, logits, mask)


def plus_plus(
    bank: Bank,
    *,
    k: int = 2,
    constants: int = 2,
    two_layer: bool = True,
    spread: float | None = None,
    compat: Literal["published"] | None = None,
) -> ExpertLayer:
    """A layer of MoE++.

    Args:
        bank: the feed-forward experts.
        k: experts per token.
        constants: how many constant experts.
        two_layer: see `ResidualRouter`.
        spread: see `PlusPlusTopK`.
        compat: published: the experts see k times the token, and the zero expert's weight is
            discarded. By default neither, so that weights sum to 1 with the zero expert's share,
            and experts from a dense layer see what they saw there.
    """
    groups = [bank, Constant(constants, bank.width), Copy(), Zero()]
    router = ResidualRouter(bank.width, bank.count + constants + 2, two_layer=two_layer)
    published = compat == "published"
    choose = PlusPlusTopK(k, discard=published, spread=spread)
    return ExpertLayer(router, choose, groups, scale=k if published else 1)


def heterogeneous_cost(layer: ExpertLayer, share: float = 0.75) -> Tensor:
    """(E,) factors for `losses.balance`: 1 for feed-forward experts, `share` for the others."""
    feed_forward = layer.groups[0].count
    return torch.tensor([1.0] * feed_forward + [share] * (layer.count - feed_forward))
