# SPDX-License-Identifier: Apache-2.0
"""Experts from a trained dense feed-forward layer, and back.

A dense layer is a `Bank` of one expert. Its hidden units add up, so blocks of them, all chosen with
weight 1, are that layer (Cai et al. 2024, *Read-ME*, arXiv 2410.19123; Yang et al., *Union of
Experts*, arXiv 2503.02495). Copies of the whole layer under weights that sum to 1 are it as well,
whatever is chosen (Komatsuzaki et al. 2022, *Sparse Upcycling*, arXiv 2212.05055).
"""

from typing import Literal

import torch
from torch import Tensor

from .bank import Bank, Weights


def split(dense: Bank, count: int, order: Tensor | None = None) -> Bank:
    """Cut a dense layer's hidden units into experts.

    Args:
        dense: a bank of one expert; left as it is.
        count: E, a divisor of its hidden units.
        order: (H,) permutation; consecutive units go to one expert. By default as they are.

    Returns:
        A bank of E experts with H / E units; an output bias is shared out equally.

    Raises:
        ValueError: not one expert, or count does not divide H.
    """
    one = single(dense)
    if dense.hidden % count:
        raise ValueError(f"{dense.hidden} hidden units cannot be cut into {count} experts")
    order = torch.arange(dense.hidden) if order is None else order
    parts = [units(one, rows, dense.gated) for rows in order.chunk(count)]
    share = None if one.outer_bias is None else one.outer_bias / count
    return dense.like(stack([part._replace(outer_bias=share) for part in parts]))


def join(bank: Bank) -> Bank:
    """The dense layer of all experts with weight 1; what `split` cut is whole again.

    Raises:
        ValueError: experts share matrices.
    """
    if bank.matrices != bank.count:
        raise ValueError("merged experts cannot be joined")
    every = [bank.fetch(number) for number in range(bank.count)]
    halves = [one.inner.chunk(2 if bank.gated else 1) for one in every]
    inner = torch.cat([torch.cat(parts) for parts in zip(*halves, strict=True)])
    inner_bias = outer_bias = None
    if bank.inner_bias is not None and bank.outer_bias is not None:
        rows = bank.inner_bias.unflatten(1, (2 if bank.gated else 1, -1))
        inner_bias, outer_bias = rows.transpose(0, 1).flatten(), bank.outer_bias.sum(dim=0)
    outer = torch.cat([one.outer for one in every], dim=1)
    return bank.like(stack([Weights(inner, outer, inner_bias, outer_bias)]))


def copies(dense: Bank, count: int) -> Bank:
    """E experts, each the whole dense layer."""
    return dense.like(stack([single(dense)] * count))


def importance(dense: Bank, tokens: Tensor) -> Tensor:
    """(H,) mean size of each hidden unit over tokens (..., D); gated ones after the gate."""
    one, total = single(dense), None
    with torch.no_grad():
        rows = tokens.flatten(0, -2)
        for part in rows.split(4096):
            hidden = torch.nn.functional.linear(part, one.inner, one.inner_bias)
            size = dense.activate(hidden).abs().sum(dim=0)
            total = size if total is None else total + size
    return torch.zeros(dense.hidden) if total is None else total / len(rows)


def by_activation(
    importances: Tensor, keep: int, compat: Literal["published"] | None = None
) -> Tensor:
    """The hidden units that each domain uses most.

    Args:
        importances: (C, H), by `importance` of each domain's tokens.
        keep: units of each domain.
        compat: published: strictly above the keep-th largest, so one fewer. By default exactly
            `keep`, among equal ones the first.

    Returns:
        (C, H) bool.
    """
    if not 1 <= keep <= importances.shape[1]:
        raise ValueError(f"keep {keep} of {importances.shape[1]} hidden units")
    ranked = importances.argsort(dim=1, descending=True, stable=True)
    if compat == "published":
        return importances > importances.gather(1, ranked[:, keep - 1 : keep])
    return torch.zeros_like(importances, dtype=torch.bool).scatter(1, ranked[:, :keep], True)


def shared_and_own(dense: Bank, masks: Tensor) -> tuple[Bank | None, Bank]:
    """What all domains use, and one expert a domain with the rest of its units.

    Args:
        dense: a bank of one expert.
        masks: (C, H) bool by `by_activation`, as many units in each row.

    Returns:
        The shared part (None without one), for `ExpertLayer(shared=)` by `always`; and C experts.
        Shared part plus expert c is the dense layer with all but row c's units at zero.

    Raises:
        ValueError: rows of different sizes, or no units but shared ones.
    """
    one, common = single(dense), masks.all(dim=0)
    own = masks & ~common
    sizes = set(own.sum(dim=1).tolist())
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"each domain needs as many units of its own, got {sorted(sizes)}")
    nothing = None if one.outer_bias is None else torch.zeros_like(one.outer_bias)
    parts = [units(one, row.nonzero()[:, 0], dense.gated) for row in own]
    if not common.any():
        return None, dense.like(stack(parts))
    shared = dense.like(stack([units(one, common.nonzero()[:, 0], dense.gated)]))
    return shared, dense.like(stack([part._replace(outer_bias=nothing) for part in parts]))


def smaller(dense: Bank, importances: Tensor, share: float = 0.125) -> Bank:
    """A small sibling: the share of a dense layer's units that matter most.

    Args:
        dense: a bank of one expert.
        importances: (H,).
        share: of the units, at least one.
    """
    number = max(1, round(share * dense.hidden))
    chosen = importances.argsort(descending=True, stable=True)[:number].sort().values
    return dense.like(stack([units(single(dense), chosen, dense.gated)]))


def single(bank: Bank) -> Weights:
    """Of a bank of one expert.

    Raises:
        ValueError: it has more.
    """
    if bank.count != 1:
        raise ValueError(f"a dense layer is a bank of one expert, not of {bank.count}")
    return bank.fetch(0)


def units(one: Weights, chosen: Tensor, gated: bool) -> Weights:
    """Some hidden units of an expert, (H',) by number, in that order."""
    chosen = chosen.to(one.inner.device)
    rows = torch.cat([chosen, chosen + one.outer.shape[1]]) if gated else chosen
    bias = None if one.inner_bias is None else one.inner_bias[rows]
    return Weights(one.inner[rows], one.outer[:, chosen], bias, one.outer_bias)


def stack(every: list[Weights]) -> Weights:
    """Experts of one shape along a first axis."""
    found = [
        None if values[0] is None else torch.stack([v for v in values if v is not None])
        for values in zip(*every, strict=True)
    ]
    inner, outer, inner_bias, outer_bias = found
    assert inner is not None
    assert outer is not None
    return Weights(inner, outer, inner_bias, outer_bias)
