# SPDX-License-Identifier: Apache-2.0
"""Expert layers by name, made of a dense feed-forward layer: what `host.install` needs."""

from typing import Literal

import torch
from torch import nn

from .bank import Bank
from .choice import ByExpert, Capacity, Choose, TopK, Weighting
from .layer import ExpertLayer
from .plusplus import PlusPlusTopK, plus_plus
from .recycle import copies, smaller, split
from .routing import LinearRouter, LookupRouter, RandomRouter, RecurrentRouter
from .stochastic import StochasticRouter
from .zero import Zero

Kind = Literal[
    "learned", "random", "lookup", "recurrent", "stochastic", "switch", "union", "moe++", "duo"
]
KINDS: dict[str, str] = {
    "learned": "a linear router, k experts per token",
    "random": "a fixed random router, k experts per token (SMoE-Dropout)",
    "lookup": "one expert for each class of inputs, such as a protocol",
    "recurrent": "a recurrent cell routes through the layers (RMoE)",
    "stochastic": "an expert drawn for each sequence (THOR)",
    "switch": "a linear router, the likeliest expert, bounded by its capacity",
    "union": "each expert picks its share of a sequence's tokens (Union of Experts)",
    "moe++": "beside experts constants, a copy and nothing (MoE++)",
    "duo": "nothing, a small part or the whole layer for each token (Duo-LLM)",
}
Start = Literal["split", "copies", "fresh"]


def build(
    kind: Kind,
    dense: Bank,
    *,
    experts: int = 8,
    k: int = 2,
    start: Start = "split",
    number: int = 0,
    before: ExpertLayer | None = None,
    classes: torch.Tensor | None = None,
    importance: torch.Tensor | None = None,
    seed: int = 0,
) -> ExpertLayer:
    """An expert layer in the place of a dense one.

    Args:
        kind: one of KINDS.
        dense: a bank of one expert, the layer to replace; left as it is.
        experts: E; `duo` has three, `moe++` four more without products.
        k: experts per token, where the kind leaves the choice.
        start: split: the dense layer's hidden units are shared out, so that k of E cost k / E of
            it, and all of E are it; outputs are added as they are. copies: each expert is the whole
            layer and weights sum to 1, so that the layer is the dense one whatever is chosen (not
            of `switch`, `union` and `moe++`, which let tokens pass); k cost k times it. fresh: as
            split, with new weights that sum to 1.
        number: place of the layer in its network.
        before: the layer before it, whose recurrent cell it shares.
        classes: (C,) int64, for `lookup`: the expert of each class; class c is expert c by default.
        importance: (H,) by `recycle.importance`, for `duo`: which units the small part keeps.
        seed: of fixed random routers.

    Raises:
        ValueError: no such kind, or experts do not divide the hidden units.
    """
    if kind not in KINDS:
        raise ValueError(f"experts must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "duo":
        return _duo(dense, importance, number)
    bank = copies(dense, experts) if start == "copies" else split(dense, experts)
    if start == "fresh":
        bank.reset_parameters()
    weights: Weighting = "one" if start == "split" else "renormalised"
    if kind == "moe++":
        layer = plus_plus(bank, k=k)
        layer.choose = PlusPlusTopK(k, weights)
        return layer
    router, choose = _parts(kind, bank, k, weights, number, before, classes, seed)
    return ExpertLayer(router, choose, [bank])


def _parts(
    kind: Kind,
    bank: Bank,
    k: int,
    weights: Weighting,
    number: int,
    before: ExpertLayer | None,
    classes: torch.Tensor | None,
    seed: int,
) -> tuple[nn.Module, Choose]:
    width, experts = bank.width, bank.count
    if kind == "random":
        return RandomRouter(width, experts, seed + number), TopK(k, weights)
    if kind == "lookup":
        return LookupRouter(experts, classes), TopK(1, "one")
    if kind == "stochastic":
        return StochasticRouter(experts, number), TopK(1, "one")
    if kind == "recurrent":
        cell = None if before is None else before.router.shared_cell
        return RecurrentRouter(width, experts, min(256, width), cell=cell), TopK(k, weights)
    if kind == "switch":
        return LinearRouter(width, experts), Capacity(TopK(1, "probability"))
    if kind == "union":
        return LinearRouter(width, experts, bias=True), ByExpert(k / experts, max(k, 2))
    return LinearRouter(width, experts), TopK(k, weights)


def _duo(dense: Bank, importance: torch.Tensor | None, number: int) -> ExpertLayer:
    """Choices are drawn until a router is put in: the network must do with any of them."""
    if importance is None:
        importance = dense.fetch(0).outer.detach().norm(dim=0)
    whole = dense.like(dense.weights)
    groups = [Zero(), smaller(dense, importance), whole]
    return ExpertLayer(StochasticRouter(3, number), TopK(1, "one"), groups)
