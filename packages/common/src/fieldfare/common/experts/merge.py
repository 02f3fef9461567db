# SPDX-License-Identifier: Apache-2.0
"""Fewer matrices behind the same router: experts aligned, grouped by use, averaged.

Li et al. 2023, *Merge, then Compress* (arXiv 2310.01334), M-SMoE. Averaging alone also serves the
same layer of several trainings from one start (`soup`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .bank import Bank, Weights
from .host import layers
from .recycle import single, stack, units
from .usage import Statistics


class Grouping(NamedTuple):
    """Experts of a layer in groups.

    Attributes:
        cores: the most used expert of each group, by falling use.
        labels: (E,) int64, group of each expert.
    """

    cores: Tensor
    labels: Tensor


def align(bank: Bank, to: int = 0) -> tuple[Bank, Tensor]:
    """Put each expert's hidden units into the order of one expert's.

    The order that maximises the products of both maps' weights with the reference's, an assignment
    problem; what an expert computes does not change.

    Args:
        bank: whose experts each have their own matrices.
        to: the expert whose order is taken.

    Returns:
        The aligned bank, and (E, H) int64: unit `order[e, i]` of expert e stands at place i.
    """
    reference = bank.fetch(to)
    orders = torch.stack([_order(reference, bank.fetch(e), bank.gated) for e in range(bank.count)])
    parts = [units(bank.fetch(e), orders[e], bank.gated) for e in range(bank.count)]
    return bank.like(stack(parts)), orders


def numbers_of_groups(usage: Tensor, average: float) -> list[int]:
    """How many groups each layer gets, by use over all layers.

    Each layer's most used expert counts as used always; of all layers' experts the
    `average * layers` most used are cores, among equal ones those with lower numbers.

    Args:
        usage: (L, E).
        average: groups per layer, 1 to E.
    """
    layers, experts = usage.shape
    if not 1 <= average <= experts:
        raise ValueError(f"{average} groups per layer: must be from 1 to {experts}")
    raised = usage.double().scatter(1, usage.argmax(dim=1, keepdim=True), 1.0)
    order = raised.flatten().argsort(descending=True, stable=True)
    cores = order[: round(average * layers)] // experts
    return torch.bincount(cores, minlength=layers).tolist()


def group(similarity: Tensor, usage: Tensor, number: int) -> Grouping:
    """The most used experts are cores; each other joins the core it is most similar to.

    Args:
        similarity: (E, E).
        usage: (E,).
        number: of groups.
    """
    cores = usage.argsort(descending=True, stable=True)[:number]
    labels = similarity[:, cores].argmax(dim=1)
    labels[cores] = torch.arange(number)
    return Grouping(cores, labels)


def merge(bank: Bank, labels: Tensor, usage: Tensor) -> Bank:
    """Average the experts of each group, weighted by use; the router stays as it is.

    Args:
        bank: aligned.
        labels: (E,) group of each expert, every group from 0 has one.
        usage: (E,); a group that was never used is averaged equally.

    Returns:
        A bank of E experts in as many matrices as there are groups.
    """
    number = int(labels.max()) + 1
    share = torch.nn.functional.one_hot(labels, number).T.double() * usage.double()
    unused = share.sum(dim=1) == 0
    share[unused] = torch.nn.functional.one_hot(labels, number).T.double()[unused]
    share = share / share.sum(dim=1, keepdim=True)
    own = [None if w is None else w[bank.index].double() for w in bank.weights]
    merged = [
        None if w is None else torch.tensordot(share.to(w.device), w, dims=1).to(bank.inner.dtype)
        for w in own
    ]
    inner, outer, inner_bias, outer_bias = merged
    assert inner is not None
    assert outer is not None
    return bank.like(Weights(inner, outer, inner_bias, outer_bias), labels)


def merge_network(
    model: nn.Module, statistics: Mapping[str, Statistics], average: float
) -> dict[str, Grouping]:
    """Align, group and merge the experts of all layers of a network.

    Args:
        model: with hosted layers of one bank each; changed in place.
        statistics: of each layer, by `usage.observe` over data that the network is for.
        average: matrices per layer that are left, over all layers.

    Returns:
        The groups of each layer, by name.

    Raises:
        ValueError: a layer holds more than one bank, or its experts are merged already.
    """
    hosted = layers(model)
    usage = torch.stack([statistics[name].usage for name in hosted])
    found = {}
    for (name, layer), number in zip(
        hosted.items(), numbers_of_groups(usage, average), strict=True
    ):
        bank = layer.groups[0]
        if len(layer.groups) > 1 or not isinstance(bank, Bank) or bank.matrices != bank.count:
            raise ValueError(
                f"{name}: only a bank of experts that were not merged yet can be merged"
            )
        known = statistics[name]
        found[name] = group(known.similarity(), known.usage, number)
        layer.groups[0] = merge(align(bank)[0], found[name].labels, known.usage)
    return found


def soup(dense: Sequence[Bank]) -> Bank:
    """The average of one dense layer over several trainings, aligned to the first.

    Wortsman et al. 2022, *Model soups* (arXiv 2203.05482). Sound where the trainings began at the
    same weights, as everything around the layer is averaged as it stands.

    Args:
        dense: banks of one expert each.
    """
    every = stack([single(bank) for bank in dense])
    aligned, _ = align(dense[0].like(every))
    labels = torch.zeros(len(dense), dtype=torch.int64)
    merged = merge(aligned, labels, torch.ones(len(dense)))
    return merged.like(merged.weights)


def _order(reference: Weights, one: Weights, gated: bool) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    with torch.no_grad():
        pairs = zip(
            reference.inner.chunk(2 if gated else 1),
            one.inner.chunk(2 if gated else 1),
            strict=True,
        )
        gain = reference.outer.double().T @ one.outer.double()
        for first, second in pairs:
            gain = gain + first.double() @ second.double().T
        if reference.inner_bias is not None and one.inner_bias is not None:
            parts = (
                b.double().view(2 if gated else 1, -1)
                for b in (reference.inner_bias, one.inner_bias)
            )
            gain = gain + torch.einsum("gi,gj->ij", *parts)
        _, order = linear_sum_assignment(gain.cpu().numpy(), maximize=True)
    return torch.from_numpy(order).long()
