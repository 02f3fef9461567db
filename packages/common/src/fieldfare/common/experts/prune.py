# SPDX-License-Identifier: Apache-2.0
"""Only the experts that a task needs: unused ones go without loss, then those another one is like.

Sarkar et al. 2024, *Revisiting SMoE Language Models by Evaluating Inefficiencies with Task Specific
Expert Pruning* (arXiv 2409.01483), UNCURL; the clustering is ours.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .bank import Bank
from .host import Hosted
from .layer import ExpertLayer
from .routing import LinearRouter, RandomRouter, RecurrentRouter
from .usage import Statistics

_ROWS = {
    LinearRouter: ("weight", "bias"),
    RandomRouter: ("weight", "bias"),
    RecurrentRouter: ("score",),
}


def clusters(correlation: Tensor, number: int) -> list[list[int]]:
    """Experts whose logits go together, by average linkage of 1 - correlation.

    Args:
        correlation: (E, E).
        number: of clusters.

    Returns:
        The clusters, each sorted, by their first experts.
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    if len(correlation) == 1:
        return [[0]]
    distance = (1 - correlation.double()).clamp_min(0)
    distance = ((distance + distance.T) / 2).fill_diagonal_(0)
    labels = cut_tree(linkage(squareform(distance.numpy()), "average"), n_clusters=number)[:, 0]
    found: dict[int, list[int]] = {}
    for expert, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(expert)
    return sorted(found.values())


def keep_for_task(statistics: Statistics, factor: float) -> list[int]:
    """The experts to keep so that E / factor are left, rounded up.

    Never used ones go first; if that is enough nothing else does. Of each cluster of the others the
    most used one stays.

    Args:
        statistics: of the task's data.
        factor: at least 1.
    """
    if factor < 1:
        raise ValueError(f"factor {factor}: must be at least 1")
    usage = statistics.usage
    used = usage.nonzero()[:, 0].tolist()
    number = math.ceil(len(usage) / factor)
    if len(used) <= number:
        return used
    correlation = statistics.correlation()[used][:, used]
    groups = clusters(correlation, number)
    return sorted(max((used[i] for i in g), key=lambda e: (float(usage[e]), -e)) for g in groups)


def select(layer: ExpertLayer, keep: list[int]) -> ExpertLayer:
    """A copy of a layer with some of its experts; rows of the router are removed, not masked.

    Where none of the others was ever chosen and weights are renormalised over the chosen, outputs
    stay the same bit for bit.

    Args:
        layer: of one bank, with a router whose logits are rows of one map.
        keep: numbers of the experts, rising.

    Raises:
        ValueError: no expert is left, or the layer is of another kind.
    """
    kind = type(layer.router)
    if kind not in _ROWS or len(layer.groups) != 1 or not isinstance(layer.groups[0], Bank):
        raise ValueError(f"experts of a {kind.__name__} cannot be taken away one by one")
    if not keep or sorted(set(keep)) != keep or keep[0] < 0 or keep[-1] >= layer.count:
        raise ValueError(f"experts to keep must be rising numbers below {layer.count}, got {keep}")
    rows = torch.tensor(keep, device=layer.groups[0].inner.device)
    reduced = copy.deepcopy(layer)
    for name in _ROWS[kind]:
        value = getattr(reduced.router, name)
        if value is not None:
            part = value.detach()[rows].clone()
            is_parameter = isinstance(value, nn.Parameter)
            setattr(reduced.router, name, nn.Parameter(part) if is_parameter else part)
    reduced.router.count = reduced.count = len(keep)
    bank: Bank = layer.groups[0]
    matrices, index = bank.index[rows].unique(return_inverse=True)
    if len(matrices) == len(keep):
        reduced.groups[0] = bank.like(bank.weights.each(lambda w: w.detach()[matrices[index]]))
    else:
        reduced.groups[0] = bank.like(bank.weights.each(lambda w: w.detach()[matrices]), index)
    reduced.dense = False  # another order of sums than the layer had
    return reduced


def prune_network(
    model: nn.Module, statistics: Mapping[str, Statistics], factor: float
) -> dict[str, list[int]]:
    """Leave each layer of a network the experts that a task needs; see `keep_for_task`.

    Args:
        model: with hosted layers; changed in place.
        statistics: of each layer, by `usage.observe` over the task's data.
        factor: at least 1.

    Returns:
        The numbers of the experts that stay, by layer.
    """
    found = {}
    for module in model.modules():
        if isinstance(module, Hosted):
            found[module.name] = keep_for_task(statistics[module.name], factor)
            module.layer = select(module.layer, found[module.name])
    return found
