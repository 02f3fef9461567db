# SPDX-License-Identifier: Apache-2.0
"""From a router's logits to the experts of each token and their weights.

A way to choose is a small frozen object, called with logits (..., T, E), where T runs over the
tokens of one sequence, and a mask (..., T) of the tokens that count. What is chosen for a sequence
never depends on the rest of the batch, except where `compat="published"` asks for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

Weighting = Literal["renormalised", "probability", "one"]
"""Softmax over the chosen experts; softmax over all; or 1, with the probability's gradient."""


class Choice(NamedTuple):
    """What was chosen for each token.

    Attributes:
        chosen: (..., T, E) bool.
        weights: (..., T, E), 0 where not chosen.
        logits: (..., T, E), what the router gave.
        mask: (..., T) bool, tokens that count; None: all.
        every: known beforehand that each expert is chosen for each token that counts.
    """

    chosen: Tensor
    weights: Tensor
    logits: Tensor
    mask: Tensor | None = None
    every: bool = False

    def usage(self) -> Tensor:
        """(E,) share of all choices that fell on each expert; sums to 1."""
        counts = self.chosen.flatten(0, -2).sum(dim=0).float()
        return counts / counts.sum().clamp_min(1)

    def per_token(self, experts: slice = slice(None)) -> Tensor:
        """(..., T) how many of these experts each token runs."""
        return self.chosen[..., experts].sum(dim=-1)


def joined(choices: Sequence[Choice]) -> Choice:
    """Of several parts' tokens (..., T, E) one of all of them, (N, E); a single one as it is."""
    if len(choices) == 1:
        return choices[0]
    chosen, weights, logits = (
        torch.cat([getattr(choice, name).flatten(0, -2) for choice in choices])
        for name in ("chosen", "weights", "logits")
    )
    masks = [
        torch.ones_like(c.chosen[..., 0]) if c.mask is None else c.mask.expand(c.chosen.shape[:-1])
        for c in choices
    ]
    mask = None
    if any(choice.mask is not None for choice in choices):
        mask = torch.cat([part.flatten() for part in masks])
    return Choice(chosen, weights, logits, mask, all(choice.every for choice in choices))


class Choose(Protocol):
    """A way to choose."""

    def __call__(self, logits: Tensor, mask: Tensor | None = None) -> Choice:
        """Logits (..., T, E) to what is chosen."""


@dataclass(frozen=True)
class TopK:
    """Each token's k largest logits; among equal ones the expert with the lower number.

    Attributes:
        k: experts per token; fewer where there are not so many, or their logits are -inf.
        weights: see `Weighting`. `one` serves experts cut from a dense layer: with k = E the sum is
            that layer, and the router still learns.
        per_sequence: the k largest means over the sequence's tokens, for all of them.
    """

    k: int
    weights: Weighting = "renormalised"
    per_sequence: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"experts per token {self.k}: must be at least 1")

    def __call__(self, logits: Tensor, mask: Tensor | None = None) -> Choice:
        """See `Choose`."""
        routed = _mean(logits, mask) if self.per_sequence else logits
        order = ranked(routed, self.k)
        chosen = torch.zeros_like(routed, dtype=torch.bool).scatter(-1, order, True)
        chosen = chosen & (routed > -math.inf)
        if self.weights == "renormalised":
            # over the chosen alone, so that not a bit depends on how many others there are
            found = routed.gather(-1, order).softmax(dim=-1)
            weights = torch.zeros_like(routed).scatter(-1, order, found)
        else:
            weights = weigh(routed, chosen, self.weights)
        return finish(chosen, weights, logits, mask, every=self.k >= logits.shape[-1])


@dataclass(frozen=True)
class ByExpert:
    """Each expert takes the tokens of a sequence that want it most.

    Yang et al., *Union of Experts* (arXiv 2503.02495). A token wants its `keep` likeliest experts,
    so an expert takes fewer where fewer want it; a token may be taken by none.

    Attributes:
        share: of the tokens that each expert takes at most, rounded down, at least one.
        keep: experts that a token may want.
        weights: see `Weighting`.
        compat: published: wishes are divided by their sum over the batch, so that a choice depends
            on the neighbours; experts that too few want are filled up with any tokens; and outputs
            are added without weights, so that the router learns nothing.
    """

    share: float
    keep: int = 2
    weights: Weighting = "one"
    compat: Literal["published"] | None = None

    def __call__(self, logits: Tensor, mask: Tensor | None = None) -> Choice:
        """See `Choose`."""
        tokens = logits.shape[-2]
        wanted = largest(logits, self.keep)
        if self.compat == "published":
            # in single precision: in a batch of one its rounding alone decides
            wish = logits.float().softmax(dim=-1) * wanted
            wish = wish / (wish.sum(dim=0, keepdim=True) + 1e-8)
            places = wish.topk(max(1, int(tokens * self.share)), dim=-2).indices
            chosen = torch.zeros_like(wish, dtype=torch.bool).scatter(-2, places, True)
            return finish(chosen, chosen.to(wish.dtype), logits, mask)
        wish = logits.softmax(dim=-1) * wanted
        if mask is not None:
            wish = wish * mask[..., None]
        counted = torch.tensor([[tokens]]) if mask is None else mask.sum(dim=-1)[..., None, None]
        limit = (counted.to(logits.device).double() * self.share + 1e-9).floor().clamp_min(1)
        order = ranked(wish.transpose(-1, -2), tokens)
        places = torch.arange(tokens, device=logits.device).expand_as(order)
        place = torch.zeros_like(order).scatter(-1, order, places).transpose(-1, -2)
        chosen = (place < limit) & (wish > 0)
        return finish(chosen, weigh(logits, chosen, self.weights), logits, mask)


@dataclass(frozen=True)
class Capacity:
    """A way to choose of which an expert takes only so many tokens; the later ones it drops.

    Fedus et al. 2021, *Switch Transformers* (arXiv 2101.03961). A dropped token's output is 0, so
    it passes by the residual.

    Attributes:
        choose: the way.
        factor: an expert takes k / E * factor of the tokens that count, rounded down, at least one.
        whole_batch: count through the whole batch in its order, as published, so that what is
            dropped depends on the neighbours; otherwise within each sequence.
    """

    choose: TopK
    factor: float = 1.25
    whole_batch: bool = False

    def __call__(self, logits: Tensor, mask: Tensor | None = None) -> Choice:
        """See `Choose`."""
        choice = self.choose(logits, mask)
        chosen = choice.chosen
        counted = torch.ones_like(chosen[..., :1]) if mask is None else mask[..., None]
        if self.whole_batch:
            chosen, counted = chosen.flatten(0, -2), counted.flatten(0, -2)
        tokens = counted.sum(dim=-2, keepdim=True).double()
        limit = (tokens * self.choose.k / chosen.shape[-1] * self.factor).floor().clamp_min(1)
        kept = (chosen & (chosen.cumsum(dim=-2) <= limit)).view_as(choice.chosen)
        return choice._replace(chosen=kept, weights=choice.weights * kept, every=False)


def largest(logits: Tensor, k: int) -> Tensor:
    """(..., E) -> bool, True at the k largest; among equal ones the first."""
    order = ranked(logits, k)
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, True)


def ranked(logits: Tensor, k: int) -> Tensor:
    """(..., E) -> (..., k) int64, the k largest, largest first; among equal ones the first."""
    if torch.compiler.is_compiling():  # ONNX knows no stable sort, and its TopK takes the first
        return logits.topk(min(k, logits.shape[-1]), dim=-1).indices
    return logits.argsort(dim=-1, descending=True, stable=True)[..., :k]


def weigh(logits: Tensor, chosen: Tensor, weighting: Weighting) -> Tensor:
    """(..., E) weights of the chosen experts, 0 elsewhere; see `Weighting`."""
    if weighting == "renormalised":
        # not -inf: where none is chosen the gradient would be NaN
        found = logits.masked_fill(~chosen, torch.finfo(logits.dtype).min).softmax(dim=-1)
        return found.masked_fill(~chosen, 0.0)
    if weighting == "one":
        likely = logits.log_softmax(dim=-1)
        return torch.where(chosen, 1.0 + (likely - likely.detach()), 0.0)
    if weighting == "probability":
        return logits.softmax(dim=-1) * chosen
    raise ValueError(f"weights must be renormalised, probability or one, got {weighting!r}")


def finish(
    chosen: Tensor, weights: Tensor, logits: Tensor, mask: Tensor | None, *, every: bool = False
) -> Choice:
    """A choice of which masked tokens have no part."""
    chosen, weights = chosen.expand_as(logits), weights.expand_as(logits)
    if mask is not None:
        chosen = chosen & mask[..., None]
        weights = weights.masked_fill(~mask[..., None], 0.0)
    return Choice(chosen, weights, logits, mask, every)


def with_k(choose: Choose, k: int) -> Choose:
    """The same way with k experts per token.

    Raises:
        ValueError: it has no k.
    """
    if isinstance(choose, TopK):
        return replace(choose, k=k)
    if isinstance(choose, Capacity):
        return replace(choose, choose=replace(choose.choose, k=k))
    raise ValueError(f"{type(choose).__name__} has no number of experts per token")


def scheduled_k(
    step: int,
    steps: int,
    first: int,
    last: int,
    form: Literal["linear", "cosine", "exponential"] = "linear",
) -> int:
    """Experts per token at a step of training, from first to last.

    Chen et al. 2023, *Sparse MoE as the New Dropout* (arXiv 2303.01610). Halves go to even.

    Args:
        step: 0 to steps.
        form: linear; a quarter of a cosine, slow at first; or 1 - 0.99^n with n = 300 at the end,
            fast at first.
    """
    if steps < 1 or first < 1 or last < 1:
        raise ValueError(f"steps {steps}, first {first} and last {last} must be at least 1")
    low, span = min(first, last), abs(last - first)
    if form == "linear":
        k = round((last - first) * step / steps) + first
    elif form == "cosine":
        part = span * math.cos(math.pi * step / (2 * steps))
        k = round(part) + low if last < first else round(-part) + last
    elif form == "exponential":
        part = 0.99 ** (step // max(1, steps // 300))
        k = round((first - last) * part) + last
    else:
        raise ValueError(f"form must be linear, cosine or exponential, got {form!r}")
    return min(max(k, low), low + span)


def _mean(logits: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return logits.mean(dim=-2, keepdim=True)
    share = mask[..., None].to(logits.dtype)
    return (logits * share).sum(dim=-2, keepdim=True) / share.sum(dim=-2, keepdim=True).clamp_min(1)
